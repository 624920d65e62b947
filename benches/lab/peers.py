"""What people would do instead: sidecars, signing by oneself, agents that do it."""

import json
import subprocess

from . import install, paths, proxy
from .service import Service, environment, free_port

SIGNING = {
    "eth_account": "native",
    "eth_account + coincurve": "coincurve",
    "coincurve alone": "bare",
}


def python_sidecar(folder, upstream):
    port = free_port()
    command = [paths.PYTHON, "-m", "uvicorn", "sidecar:app", "--app-dir", paths.PEERS,
               "--port", str(port), "--log-level", "warning", "--no-access-log"]
    return sidecar("python", command, port, folder, upstream)


def node_sidecar(folder, upstream):
    port = free_port()
    return sidecar("node", [*script("sidecar.mjs"), str(port)], port, folder, upstream)


def sidecar(name, command, port, folder, upstream):
    env = {"UPSTREAM": f"http://127.0.0.1:{upstream}", "KEY": proxy.KEY,
           "NODE_ENV": "production"}
    return Service(name, command, port, env=env, log=folder / f"{name}.log")


def bare_signing(seconds):
    """CPU µs of one signature of a message of ours, by library."""
    python = [paths.PYTHON, paths.PEERS / "sign.py"]
    found = {name: output([*python, backend, str(seconds)], backend_of(backend))
             for name, backend in SIGNING.items()}
    for library in ("viem", "ethers"):
        found[library] = output([*script("sign.mjs"), library, str(seconds)])
    return {name: float(text) for name, text in found.items()}


def agent(url, backend, seconds, token=None):
    """A Python agent that lists jobs one after another: its CPU µs a call, its p50, its calls. It
    signs with a backend, or calls the proxy with a token."""
    command = [paths.PYTHON, paths.PEERS / "agent.py", url, str(seconds)]
    env = {"TOKEN": token} if token else {**backend_of(backend), "BACKEND": backend}
    return json.loads(output(command, env))


def key_file(password, cost):
    """The key, under a password, as other programs write it."""
    return json.loads(output([paths.PYTHON, paths.PEERS / "key_file.py", password, str(cost)]))


def signature(bench):
    """CPU µs of one bare signature."""
    return float(output([bench]))


def backend_of(backend):
    """eth_account uses coincurve where it is installed, unless it is told not to."""
    kind = "NativeECCBackend" if backend == "native" else "CoinCurveECCBackend"
    return {"ECC_BACKEND_CLASS": f"eth_keys.backends.{kind}"}


def script(name):
    """Node looks for packages beside the script, so it is copied to where they are."""
    for source in paths.PEERS.glob("*.mjs"):
        (paths.NODE_MODULES / source.name).write_text(source.read_text())
    return [install.node(), paths.NODE_MODULES / name]


def output(command, env=None):
    env = environment({"KEY": proxy.KEY, **(env or {})})
    done = subprocess.run([str(part) for part in command], env=env, text=True,
                          capture_output=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout.strip()
