"""What the release binary does with memory, which its allocator decides."""

import http.client
import pathlib
import time
from urllib.parse import urlsplit

from proxy import started

CROWD = 400


def resident(pid):
    """In KiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def call(address):
    """A call over a connection of its own, which stays open."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("POST", "/api/external/jobs/list", body="{}")
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return connection


def test_memory_goes_back_to_the_system_when_a_crowd_has_gone():
    with started("serve", "--sandbox") as (address, pid):
        call(address).close()
        before = resident(pid)
        crowd = [call(address) for _ in range(CROWD)]
        crowded = resident(pid)
        for connection in crowd:
            connection.close()
        most = crowded - (crowded - before) // 2
        deadline = time.monotonic() + 60
        while resident(pid) > most:
            assert time.monotonic() < deadline, f"{before}, {crowded}, {resident(pid)} KiB"
            time.sleep(0.1)
