"""The programs of the README, as they stand, against `serve --sandbox`."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from proxy import ROOT, listening, local_session, serving, started

README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8402"
FIRST_JOB = "68f0a1c27b3e4d5f60718201"


def program(language, marker):
    """The one block in a language that holds the marker."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if marker in block]
    assert ADDRESS in block
    return block


LOOPS = pytest.mark.parametrize(
    ("command", "language", "marker"),
    [
        (["sh", "-eu", "-c"], "sh", "API="),
        ([sys.executable, "-c"], "python", "/list"),
        (["node", "--input-type=module", "-e"], "js", "/list"),
    ],
    ids=["sh", "python", "js"],
)


def run(command, text):
    """Runs a program of the README against a proxy of its own; gives what it prints."""
    with serving("--sandbox") as address:
        # What somebody may have tried first: the lines that the start prints.
        for path in ("list", f"{FIRST_JOB}/reserve", f"{FIRST_JOB}/status"):
            assert local_session().post(f"{address}/api/external/jobs/{path}").ok
        return begun(command, text, address)()


def begun(command, text, address):
    """Starts a program of the README; gives what waits for its end, and gives what it printed."""
    process = subprocess.Popen(
        [*command, text.replace(ADDRESS, address)],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def end():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)
        return out

    return end


@pytest.fixture
def home(tmp_path):
    """A folder with a wallet."""
    (tmp_path / "keys").mkdir(mode=0o700)
    key = ROOT / "tests/vectors/keystore/eth-account-scrypt.json"
    shutil.copy(key, tmp_path / "keys/wallet.json")
    (tmp_path / "keys/wallet.json").chmod(0o600)
    return tmp_path


@contextlib.contextmanager
def sandbox():
    """A sandbox of its own process; gives its address and what counts there."""
    with listening("sandbox", "--review", "500ms") as address, local_session() as session:
        yield address, lambda: session.get(f"{address}/sandbox/counts").json()


def proxy_of(upstream, home, port=0):
    return started(
        "serve", "--upstream", upstream, port=port, directory=home, password="correct horse"
    )


def each_is_done_once(counts):
    """One general job and one with a workflow."""
    for what in ("submissions", "accepted"):
        assert sorted(counts()[what].values())[-3:] == [0, 1, 1], (what, counts())


def inject(upstream, **fault):
    assert local_session().post(f"{upstream}/sandbox/faults", json=fault).ok


def test_the_loop_by_curl():
    out = run(["sh", "-eu", "-c"], program("sh", "API="))
    assert out.count('"status":"submitted"') == 4, out
    assert out.count('"has_active_reservation":false') == 2, out
    assert '"status":"published"' in out, out


@pytest.mark.parametrize(
    ("language", "command"),
    [("python", [sys.executable, "-c"]), ("js", ["node", "--input-type=module", "-e"])],
)
def test_the_loop_by_a_program(language, command):
    out = run(command, program(language, "/list"))
    assert out.count("-> approved") == 2, out


@LOOPS
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut_after", "action": "job_complete", "times": 1},
        {"kind": "slow"},
        {"kind": "status_429", "times": 5},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_loop_in_trouble_does_each_job_once(command, language, marker, fault, home):
    with sandbox() as (upstream, counts), proxy_of(upstream, home) as (address, _):
        inject(upstream, **fault)
        begun(command, program(language, marker), address)()
        each_is_done_once(counts)
        assert counts()["faults"][fault["kind"]]


@LOOPS
def test_a_loop_whose_proxy_is_killed_in_the_middle_does_each_job_once(
    command, language, marker, home
):
    with sandbox() as (upstream, counts):
        inject(upstream, kind="slow", action="job_complete", times=1, delay="60s")
        with proxy_of(upstream, home) as (address, process):
            end = begun(command, program(language, marker), address)
            while "slow" not in counts()["faults"]:
                time.sleep(0.01)
            os.kill(process, signal.SIGKILL)
        with proxy_of(upstream, home, port=address.rsplit(":")[-1]):
            end()
        each_is_done_once(counts)
