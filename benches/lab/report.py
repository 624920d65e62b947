"""What the comparison found: a table of figures, a table of targets."""

from .comparison import AFTERMATH, CONNECTIONS, CROWD
from .table import markdown, number, times

SERVICES = {
    "nginx": "nginx, plain",
    "proxy": "agentpmt-proxy",
    "python": "Python sidecar",
    "node": "Node sidecar",
}

ROWS = [
    (f"throughput, {CONNECTIONS} connections (requests/s)", f"{CONNECTIONS}.rate"),
    (f"CPU a request, {CONNECTIONS} connections (µs)", f"{CONNECTIONS}.cpu"),
    ("CPU a request, 1 connection (µs)", "1.cpu"),
    ("p50, 1 connection (µs)", "1.p50"),
    ("p99, 1 connection (µs)", "1.p99"),
    ("p99.9, 1 connection (µs)", "1.p999"),
    (f"p50, {CONNECTIONS} connections (µs)", f"{CONNECTIONS}.p50"),
    (f"p99, {CONNECTIONS} connections (µs)", f"{CONNECTIONS}.p99"),
    (f"p99.9, {CONNECTIONS} connections (µs)", f"{CONNECTIONS}.p999"),
    ("half load: requests/s", "half.rate"),
    ("half load: p50 (µs)", "half.p50"),
    ("half load: p99 (µs)", "half.p99"),
    ("resident memory, idle (MB)", "idle"),
]

SIGNING = {
    "signature": "k256, as in this proxy (bare, of a digest)",
    "sign.coincurve alone": "Python, coincurve and a hash alone",
    "sign.eth_account + coincurve": "Python, eth_account with coincurve",
    "sign.eth_account": "Python, eth_account without coincurve",
    "sign.viem": "JavaScript, viem",
    "sign.ethers": "JavaScript, ethers",
}

AGENTS = {
    "proxy": "calls through the proxy",
    "eth_account": "signs by itself, eth_account with coincurve",
    "bare": "signs by itself, coincurve and a hash alone",
}

METHOD = """\
All in one run, in turn, round after round, over loopback; load generator, upstream and what is
measured share the cores. CPU time is user + system time of the process and its children, divided
by requests, and given as the lower quartile of the rounds, since whatever else runs on the machine
only adds to it; a signature is timed by the CPU time of its thread. Other figures are medians. The
proxy has its default configuration, so a thread for each core, one client with a
token, and logs to a file; nginx, which writes no access log, and the sidecars are one process each.
The Python sidecar signs with coincurve, and neither sidecar checks tokens, keeps a journal or logs.
In brackets: how many times the proxy's figure. At half load each of the connections pauses between
two requests for a random time, chosen so that the throughput is half of what it was at full load.
The start is that with a key file of scrypt's least cost, in the median; all else is with a standard
one. Medians that are compared in a target are compared within a round."""


def services(figures):
    """Every figure of every service, and beside it how many times that of the proxy it is."""
    head = ["figure", *SERVICES.values()]
    return markdown(head, [[title, *cells(figures, field)] for title, field in ROWS])


def cells(figures, field):
    figure = figures.cost if field.endswith("cpu") else figures.median
    own = figure(f"proxy.{field}")
    for name in SERVICES:
        value = figure(f"{name}.{field}")
        ratio = "" if name == "proxy" or not (value and own) else f" ({times(value / own)})"
        yield number(value) + ratio


def signing(figures):
    own = figures.cost("signature")
    rows = [[title, number(figures.cost(name)), ratio(figures.cost(name), own)]
            for name, title in SIGNING.items()]
    return markdown(["one signature", "CPU (µs)", "times k256"], rows)


def agents(figures):
    own = figures.cost("agent.proxy.total")
    rows = [[title, *(number(figures.cost(f"agent.{name}.{field}")) for field in ("cpu", "total")),
             number(figures.median(f"agent.{name}.p50")),
             ratio(figures.cost(f"agent.{name}.total"), own)]
            for name, title in AGENTS.items()]
    head = ["agent in Python (httpx)", "its CPU a call (µs)", "with the proxy's (µs)", "p50 (µs)",
            "times through the proxy"]
    return markdown(head, rows)


def ratio(value, own):
    return times(value / own) if value and own else "–"


def proxy_alone(figures):
    """What has nothing beside it."""
    rows = [
        ["start to `/readyz`, key derivation apart (ms)", number(figures.median("start"))],
        [f"requests at {CROWD:,} connections", number(figures.median("crowd.requests"))],
        ["resident memory after them (MB)", number(figures.median("crowd.resident"))],
        ["resident memory at most on the way (MB)", number(figures.median("crowd.peak"))],
        [f"resident memory {AFTERMATH} s after them (MB)", number(figures.median("crowd.left"))],
        ["records in the journal for each request", number(figures.median("records"))],
    ]
    return markdown(["agentpmt-proxy alone", "figure"], rows)


def method(about):
    """How to read the tables, and of which machine and versions they are."""
    versions = ", ".join(f"{name} {version}" for name, version in about.items())
    return f"{METHOD}\n\n{versions}"
