"""Starting what is measured, and how long a start takes."""

import contextlib
import dataclasses
import json
import pathlib
import time

from . import nginx, peers, proxy
from .service import Service

# The least that scrypt can be told; a standard key file takes a second and 256 MiB.
LEAST_COST = 2


@dataclasses.dataclass(frozen=True)
class Lab:
    """What runs: the upstream, and what is loaded in front of it."""
    folder: pathlib.Path
    stub: Service
    services: dict
    token: str


@contextlib.contextmanager
def running(folder):
    """Upstream, nginx, the proxy and its peers."""
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(nginx.stub(folder))
        services = [
            nginx.plain(folder, stub.port),
            proxy.new(folder, stub.port),
            peers.python_sidecar(folder, stub.port),
            peers.node_sidecar(folder, stub.port),
        ]
        started = {service.name: stack.enter_context(service) for service in services}
        yield Lab(folder, stub, started, proxy.add_client(started["proxy"]))


def measure(lab, starts, figures):
    """From the start of the process until it answers `/readyz`, in ms, with a key file whose
    derivation takes no time."""
    home = lab.folder / "starting"
    (home / "keys").mkdir(parents=True, mode=0o700)
    key = home / "keys/key.json"
    key.touch(mode=0o600)
    key.write_text(json.dumps(peers.key_file(proxy.PASSWORD, LEAST_COST)))
    for _ in range(starts):
        service = proxy.configured(home, lab.stub.port, "starting")
        began = time.monotonic()
        service.start()
        try:
            service.wait_until_ready(pause=0.0005)
            figures.add("start", (time.monotonic() - began) * 1000)
        finally:
            service.stop()
