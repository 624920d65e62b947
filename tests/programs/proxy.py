"""Starts the built program and stops it again."""

import contextlib
import os
import pathlib
import subprocess

import requests

ROOT = pathlib.Path(__file__).parents[2]
BINARY = ROOT / "target/release/agentpmt-proxy"


def command(*arguments, directory=ROOT, password=None, **options):
    """Runs one command to its end."""
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        cwd=directory,
        env=environment(password),
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def serving(*arguments, **options):
    """`serve` on a free port; gives the address that it prints."""
    return listening("serve", *arguments, **options)


@contextlib.contextmanager
def listening(name, *arguments, **options):
    """A command that serves, on a free port unless it is told one; gives the address."""
    with started(name, *arguments, **options) as (address, _):
        yield address


@contextlib.contextmanager
def started(name, *arguments, port=0, directory=ROOT, password=None, log=subprocess.DEVNULL):
    """The same; gives the address and the process id."""
    process = subprocess.Popen(
        [BINARY, name, "--listen", f"127.0.0.1:{port}", *map(str, arguments)],
        cwd=directory,
        env=environment(password),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        first = process.stdout.readline()
        assert "http://" in first, f"no address in {first!r}"
        yield "http://" + first.split("http://")[1].strip(), process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


def environment(password):
    given = {"AGENTPMT_PROXY_PASSWORD": password} if password else {}
    return {"PATH": os.environ["PATH"], **given}


def local_session():
    """A session that does not look for a proxy in the environment."""
    session = requests.Session()
    session.trust_env = False
    return session
