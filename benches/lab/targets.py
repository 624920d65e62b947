"""What the figures have to be."""

import dataclasses
from collections.abc import Callable

from .comparison import CONNECTIONS, FULL
from .table import markdown, number, times

CPU = f"{CONNECTIONS}.cpu"
RATE = f"{CONNECTIONS}.rate"


@dataclasses.dataclass(frozen=True)
class Target:
    title: str
    measured: Callable
    limit: float
    at_most: bool = True
    unit: str = "×"

    def row(self, figures):
        value = self.measured(figures)
        sign = "≤" if self.at_most else "≥"
        verdict = "not measured" if value is None else "yes" if self.reached(figures) else "**no**"
        return [self.title, shown(value, self.unit), f"{sign} {shown(self.limit, self.unit)}",
                verdict]

    def reached(self, figures):
        """What was not measured is not reached."""
        value = self.measured(figures)
        if value is None:
            return False
        return value <= self.limit if self.at_most else value >= self.limit


def shown(value, unit):
    return times(value) if unit == "×" else number(value, unit)


def ratio(over, under):
    """How the figures of one round stand to each other, the median of that over the rounds."""
    return lambda figures: figures.median_of(lambda a, b: a / b, over, under)


def cpu_to_limit(figures):
    """The limit is what nginx and a signature cost, all by CPU time."""
    own, plain, signature = map(figures.cost, (f"proxy.{CPU}", f"nginx.{CPU}", "signature"))
    return own / (plain + signature) if own and plain and signature else None


def agent_cpu(figures):
    own, alone = map(figures.cost, ("agent.proxy.total", "agent.eth_account.total"))
    return own / alone if own and alone else None


def added_p50(figures):
    return figures.median_of(lambda own, plain, signature: (own - plain) / signature,
                             "proxy.1.p50", "nginx.1.p50", "signature")


def crowd_memory(figures):
    """Not after fewer requests."""
    requests = figures.median("crowd.requests") or 0
    return figures.median("crowd.resident") if requests >= FULL.crowd_requests else None


TARGETS = [
    Target("CPU a signed `job_list`, to nginx + one signature", cpu_to_limit, 1.25),
    Target(f"throughput at {CONNECTIONS} connections, to nginx",
           ratio(f"proxy.{RATE}", f"nginx.{RATE}"), 0.4, at_most=False),
    Target("the same, to the Python sidecar", ratio(f"proxy.{RATE}", f"python.{RATE}"), 10,
           at_most=False),
    Target("the same, to the Node sidecar", ratio(f"proxy.{RATE}", f"node.{RATE}"), 10,
           at_most=False),
    Target("p50 at one connection beyond nginx, in signatures", added_p50, 2),
    Target("p99 at half load, to p50", ratio("proxy.half.p99", "proxy.half.p50"), 3),
    Target("resident memory, idle", lambda figures: figures.median("proxy.idle"), 16, unit="MB"),
    Target("resident memory after a million requests at 750 connections", crowd_memory, 40,
           unit="MB"),
    Target("start to `/readyz`, key derivation apart", lambda figures: figures.median("start"), 30,
           unit="ms"),
    Target("CPU of a Python agent and the proxy, to one that signs by itself",
           agent_cpu, 1),
    Target("p50 of a Python agent, to one that signs by itself",
           ratio("agent.proxy.p50", "agent.eth_account.p50"), 1),
]


def table(figures):
    head = ["target", "measured", "target", "reached"]
    return markdown(head, [target.row(figures) for target in TARGETS])


def all_reached(figures):
    return all(target.reached(figures) for target in TARGETS)
