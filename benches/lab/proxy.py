"""The proxy under test: a folder of its own, an imported key, one client with a token, and the
default configuration but for address and upstream. It logs to a file, as a service does."""

import re
import subprocess

from . import paths
from .service import Service, environment, free_port

PASSWORD = "benchmark"
KEY = "42" * 32


def new(folder, upstream, name="proxy"):
    """A proxy in a new folder that can be started."""
    home = folder / name
    home.mkdir()
    run(home, "wallet", "import", input=KEY + "\n")
    return configured(home, upstream, name)


def configured(home, upstream, name):
    """A proxy in a folder that has its key."""
    port = free_port()
    command = [paths.BINARY, "serve", "--listen", f"127.0.0.1:{port}",
               "--upstream", f"http://127.0.0.1:{upstream}"]
    service = Service(name, command, port, ready="/readyz", folder=home,
                      env={"AGENTPMT_PROXY_PASSWORD": PASSWORD}, log=home / "log")
    service.home = home
    service.database = home / "state/proxy.db"
    return service


def add_client(service, name="agent", *rights):
    """The token of a new client."""
    shown = run(service.home, "client", "add", name, "--allow", "jobs", *rights)
    return re.search(r"apmt_[0-9a-f]+", shown)[0]


def run(home, *arguments, **options):
    """One command to its end; what it prints."""
    env = environment({"AGENTPMT_PROXY_PASSWORD": PASSWORD})
    done = subprocess.run([paths.BINARY, *arguments], cwd=home, env=env, text=True,
                          capture_output=True, timeout=60, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout
