"""Load by wrk, and what it cost the process under it."""

import dataclasses
import json
import subprocess

from . import paths, procfs
from .service import environment

JOB_LIST = "/api/external/jobs/list"


@dataclasses.dataclass(frozen=True)
class Load:
    connections: int = 32
    seconds: float = 2
    body: str = '{"limit":10}'
    paths: tuple = (JOB_LIST,)
    tokens: tuple = ()
    pause_ms: float = 0


@dataclasses.dataclass(frozen=True)
class Sample:
    """Latencies and CPU time in µs, CPU time a request."""
    requests: int
    seconds: float
    p50: int
    p99: int
    p999: int
    cpu: float

    @property
    def rate(self):
        return self.requests / self.seconds


def run(service, load, folder):
    """Loads a service. An answer that is no success spoils the figures, so it ends the run."""
    before = procfs.cpu_seconds(service.pid)
    figures = fire(service.url, load, folder)
    cpu = procfs.cpu_seconds(service.pid) - before
    if figures["failed"] or not figures["requests"]:
        raise RuntimeError(f"{service.name} failed {figures['failed']} requests: {figures}")
    requests = figures["requests"]
    return Sample(requests, figures["micros"] / 1e6, figures["p50"], figures["p99"],
                  figures["p999"], cpu / requests * 1e6)


def fire(url, load, folder):
    env = {
        "LOAD_BODY": written(folder / "load.body", load.body),
        "LOAD_TOKENS": written(folder / "load.tokens", "\n".join(load.tokens)),
        "LOAD_PATHS": written(folder / "load.paths", "\n".join(load.paths)),
        "LOAD_PAUSE_MS": str(load.pause_ms),
    }
    command = ["wrk", "--threads", "1", "--connections", str(load.connections),
               "--duration", f"{max(1, round(load.seconds))}s", "--timeout", "30s",
               "--script", str(paths.LOAD_SCRIPT), url]
    done = subprocess.run(command, env=environment(env), capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("LOAD "):
            return json.loads(line.removeprefix("LOAD "))
    raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")


def written(path, text):
    path.write_text(text)
    return str(path)
