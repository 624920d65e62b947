"""The proxy beside nginx and the sidecars, each loaded in turn, round after round."""

import dataclasses
import sys
import time

from . import history, peers, procfs, startup, wrk
from .wrk import Load

CONNECTIONS = 32
# About as many calls as one client may have in flight.
CROWD = 750

# Seconds to stop everything and write the report.
RESERVE = 25

# Seconds in which free memory may go back to the system.
AFTERMATH = 5

# The part of the time that is kept for the crowd, at most.
CROWD_SHARE = 0.45


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds."""
    rounds: int
    slice: float
    signing: float
    starts: int
    crowd_requests: int
    limit: float


FULL = Plan(rounds=12, slice=1, signing=0.2, starts=15, crowd_requests=1_000_000, limit=590)
QUICK = Plan(rounds=1, slice=1, signing=0.2, starts=5, crowd_requests=30_000, limit=120)


class Comparison:
    """All services run from the beginning to the end; those that are not loaded cost nothing."""

    def __init__(self, plan, lab, bench, deadline, figures):
        self.plan = plan
        self.lab = lab
        self.bench = bench
        self.deadline = deadline
        self.figures = figures
        self.names = list(lab.services)
        self.sent = 0

    def run(self):
        self.idle()
        self.warm_up()
        startup.measure(self.lab, self.plan.starts, self.figures)
        for number in range(self.plan.rounds):
            if number and self.deadline.left() < self.round_time() + self.crowd_time() + RESERVE:
                break
            began = time.monotonic()
            self.round(number)
            self.figures.add("round", time.monotonic() - began)
            note(f"round {number + 1} took {time.monotonic() - began:.0f} s")
        self.crowd()
        self.records()

    def round(self, number):
        # Nobody always comes after the same one.
        turn = number % len(self.names)
        names = self.names[turn:] + self.names[:turn]
        for connections in (1, CONNECTIONS):
            for name in names:
                self.load(f"{name}.{connections}", name, Load(connections, self.plan.slice))
        for name in names:
            self.half(name)
        self.signing()
        for name in ("eth_account", "proxy", "bare"):
            self.agent(name)

    def idle(self):
        """Once started and before the first call."""
        time.sleep(1)
        for name in self.names:
            self.figures.add(f"{name}.idle", procfs.resident_mb(self.lab.services[name].pid))

    def warm_up(self):
        """Compilers and connections have their start behind them."""
        for name in self.names:
            self.sample(name, Load(CONNECTIONS, self.plan.slice))

    def load(self, label, name, load):
        self.figures.add_sample(label, self.sample(name, load))

    def sample(self, name, load):
        tokens = (self.lab.token,) if name == "proxy" else ()
        load = dataclasses.replace(load, tokens=tokens)
        sample = wrk.run(self.lab.services[name], load, self.lab.folder)
        self.sent += sample.requests if name == "proxy" else 0
        return sample

    def half(self, name):
        """Half of the throughput that was just measured, over as many connections: each pauses
        between two requests, for how long a short run before tells."""
        full = f"{name}.{CONNECTIONS}"
        turn = CONNECTIONS / (self.figures.last(f"{full}.rate") / 2) * 1000
        pause = turn - self.figures.last(f"{full}.p50") / 1000 / 2
        tried = self.sample(name, Load(CONNECTIONS, 1, pause_ms=pause))
        pause = max(0.1, pause + turn - CONNECTIONS / tried.rate * 1000)
        self.load(f"{name}.half", name, Load(CONNECTIONS, self.plan.slice, pause_ms=pause))

    def signing(self):
        self.figures.add("signature", peers.signature(self.bench))
        for name, cpu in peers.bare_signing(self.plan.signing).items():
            self.figures.add(f"sign.{name}", cpu)

    def agent(self, name):
        """An agent in Python, through the proxy or by itself; what it costs, and with the proxy."""
        through = name == "proxy"
        service = self.lab.services["proxy"] if through else self.lab.stub
        before = procfs.cpu_seconds(service.pid)
        said = peers.agent(service.url, name, self.plan.slice, self.lab.token if through else None)
        self.sent += said["calls"] if through else 0
        shared = (procfs.cpu_seconds(service.pid) - before) / said["calls"] * 1e6
        self.figures.add(f"agent.{name}.p50", said["p50"])
        self.figures.add(f"agent.{name}.cpu", said["cpu"])
        self.figures.add(f"agent.{name}.total", said["cpu"] + (shared if through else 0))

    def crowd(self):
        """A million requests at many connections, or as many as the time allows."""
        service, served = self.lab.services["proxy"], 0
        procfs.forget_peak(service.pid)
        while (left := self.plan.crowd_requests - served) > 0:
            seconds = min(left / self.rate() + 1, self.deadline.left() - RESERVE)
            if seconds < 1:
                break
            # The connections of the load before would be there beside the new ones.
            time.sleep(AFTERMATH)
            served += self.sample("proxy", Load(CROWD, seconds)).requests
        self.figures.add("crowd.requests", served)
        self.figures.add("crowd.resident", procfs.resident_mb(service.pid))
        self.figures.add("crowd.peak", procfs.peak_mb(service.pid))
        time.sleep(AFTERMATH)
        self.figures.add("crowd.left", procfs.resident_mb(service.pid))

    def records(self):
        """How many records the journal holds for a request that the proxy was sent."""
        records = history.count_records(self.lab.services["proxy"])
        self.figures.add("records", records / self.sent)

    def rate(self):
        return self.figures.last(f"proxy.{CONNECTIONS}.rate")

    def crowd_time(self):
        """A crowd is somewhat slower."""
        return min(self.plan.crowd_requests / self.rate() * 1.15, self.plan.limit * CROWD_SHARE)

    def round_time(self):
        return self.figures.last("round") * 1.1


def note(text):
    print(text, file=sys.stderr, flush=True)
