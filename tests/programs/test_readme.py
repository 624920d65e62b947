"""The programs of the README, as they stand, against `serve --sandbox`."""

import os
import re
import subprocess
import sys

import pytest

from proxy import ROOT, local_session, serving

README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8402"
FIRST_JOB = "68f0a1c27b3e4d5f60718201"


def program(language, marker):
    """The one block in a language that holds the marker."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if marker in block]
    assert ADDRESS in block
    return block


def run(command, text):
    """Runs a program of the README against a proxy of its own; gives what it prints."""
    with serving("--sandbox") as address:
        # What somebody may have tried first: the lines that the start prints.
        for path in ("list", f"{FIRST_JOB}/reserve", f"{FIRST_JOB}/status"):
            assert local_session().post(f"{address}/api/external/jobs/{path}").ok
        done = subprocess.run(
            [*command, text.replace(ADDRESS, address)],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
