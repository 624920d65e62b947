"""Starts the built program and stops it again."""

import contextlib
import os
import pathlib
import shutil
import subprocess

import requests

ROOT = pathlib.Path(__file__).parents[2]
BINARY = ROOT / "target/release/agentpmt-proxy"
# Where the documents and the examples look for it.
ADDRESS = "http://127.0.0.1:8402"
PASSWORD = "correct horse"
KEY_FILE = ROOT / "tests/vectors/keystore/eth-account-scrypt.json"


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


def with_wallet(home):
    """Puts the key file into a folder."""
    (home / "keys").mkdir(mode=0o700)
    shutil.copy(KEY_FILE, home / "keys/wallet.json")
    (home / "keys/wallet.json").chmod(0o600)
    return home


@contextlib.contextmanager
def sandbox():
    """A sandbox of its own process; gives its address and the counts of what happened there."""
    with listening("sandbox", "--review", "500ms") as address, local_session() as session:
        get = lambda path: session.get(f"{address}/sandbox/{path}").json()
        yield address, lambda: {**get("counts"), **get("ledger")}


def proxy_of(upstream, home, port=0):
    return started("serve", "--upstream", upstream, port=port, directory=home, password=PASSWORD)
