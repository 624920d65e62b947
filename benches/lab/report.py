"""What the comparison found: a table of figures, a table of targets."""

from .comparison import CONNECTIONS, CROWD
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


def services(figures):
    """Every figure of every service, and beside it how many times that of the proxy it is."""
    head = ["figure (median of the rounds)", *SERVICES.values()]
    return markdown(head, [[title, *cells(figures, field)] for title, field in ROWS])


def cells(figures, field):
    own = figures.median(f"proxy.{field}")
    for name in SERVICES:
        value = figures.median(f"{name}.{field}")
        ratio = "" if name == "proxy" or not (value and own) else f" ({times(value / own)})"
        yield number(value) + ratio


def signing(figures):
    own = figures.median("signature")
    rows = [[title, number(figures.median(name)), ratio(figures.median(name), own)]
            for name, title in SIGNING.items()]
    return markdown(["one signature", "CPU (µs)", "times k256"], rows)


def agents(figures):
    own = figures.median("agent.proxy.total")
    rows = [[title, *(number(figures.median(f"agent.{name}.{field}"))
                      for field in ("cpu", "total", "p50")),
             ratio(figures.median(f"agent.{name}.total"), own)]
            for name, title in AGENTS.items()]
    head = ["agent in Python (httpx)", "its CPU a call (µs)", "with the proxy's (µs)", "p50 (µs)",
            "times through the proxy"]
    return markdown(head, rows)


def ratio(value, own):
    return times(value / own) if value and own else "–"


def crowd(figures):
    requests = figures.median("crowd.requests")
    return (f"After {number(requests)} requests at {CROWD:,} connections the proxy holds "
            f"{number(figures.median('crowd.resident'))} MB, at most "
            f"{number(figures.median('crowd.peak'))} MB on the way. From its start to `/readyz` it "
            f"takes {number(figures.median('start'))} ms with a key file of no cost.")
