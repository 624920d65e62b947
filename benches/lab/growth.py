"""How the cost of a call grows with what there is: rows, each with a small end and larger ones."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable

from . import history, proxy, wrk
from .wrk import Load

CLIENTS = [1, 100, 10_000]
RECORDS = [0, 1_000_000]
RESERVATIONS = [0, 10_000]
CONNECTIONS = [1, 32, 1_000]
# So few that what is under way when a run ends does not count for much.
FEW_CONNECTIONS = 4
BODIES = [50, 4 << 10, 64 << 10, 256 << 10]
ANSWERS = [1 << 10, 64 << 10, 1 << 20, 8 << 20]

# Seconds of a run, of the load before it, and to stop everything at the end.
SLICE = 2
WARM_UP = 1
RESERVE = 10

# Calls a second that any machine makes.
FEWEST_CALLS = 4_000

# A few percent are to be told apart from noise only where they must not be there.
FEW_ROUNDS = 3
MANY_ROUNDS = 12

JOBS = tuple(f"68f0a1c27b3e4d5f{number:08x}" for number in range(10_000))

TICKET = {"name": "ticket", "id": 12345, "tags": ["billing", "refund"], "weight": 0.75,
          "text": "The customer wants the invoice of March again; it was sent twice."}

# What stands around the tickets, in bytes, and a little more.
FRAME = 64


@dataclasses.dataclass(frozen=True)
class End:
    """One size of a row."""
    label: str
    service: object
    load: Load
    # What is to be done before each run.
    before: Callable = lambda: None
    # Seconds of the load before it.
    warm_up: float = WARM_UP


@dataclasses.dataclass(frozen=True)
class Row:
    title: str
    ends: list
    rounds: int = FEW_ROUNDS
    # Whether it must not grow.
    watched: bool = False


def watched(title, ends):
    return Row(title, ends, MANY_ROUNDS, watched=True)


class Rows:
    """Starts a proxy for every state that is compared, all with the same key."""

    def __init__(self, folder, stub, stack):
        self.folder = folder
        self.stub = stub
        self.stack = stack
        self.first = proxy.new(folder, stub.port, "key")

    def all(self):
        plain, token = self.started("plain")
        load = Load(tokens=(token,))
        return [
            Row("nothing (two alike)", [self.alike("one"), self.alike("other")], MANY_ROUNDS),
            watched("clients", [self.clients(count) for count in CLIENTS]),
            watched("journal entries", [self.journal(count) for count in RECORDS]),
            watched("reservations (`job_status`)",
                    [self.reservations(count) for count in RESERVATIONS]),
            Row("connections", [
                End(f"{count:,}", plain, dataclasses.replace(load, connections=count))
                for count in CONNECTIONS]),
            Row("request body, not hashed (`job_list`)", [
                End(size(count), plain, Load(FEW_CONNECTIONS, tokens=(token,), body=body(count)))
                for count in BODIES]),
            Row("request body, hashed, recorded on disk (`job_complete`)", self.completions()),
            Row("answer", [self.answer(count) for count in ANSWERS]),
        ]

    def alike(self, name):
        """What grows between two of these is noise."""
        service, token = self.started(name)
        return End(name, service, Load(tokens=(token,)))

    def clients(self, count):
        service, token = self.made(f"clients-{count}")
        tokens = history.add_clients(service, count - 1)
        self.start(service)
        # Each is read once, at its first call.
        return End(f"{count:,}", service, Load(tokens=(token, *tokens)),
                   lambda: history.use_clients(service), WARM_UP + count / FEWEST_CALLS)

    def journal(self, count):
        service, token = self.made(f"journal-{count}")
        if count:
            history.add_journal(service, count)
        self.start(service)
        return End(f"{count:,}", service, Load(tokens=(token,)))

    def reservations(self, count):
        service, token = self.made(f"reservations-{count}")
        history.add_reservations(service, JOBS[:count])
        self.start(service)
        paths = tuple(f"/api/external/jobs/{job}/status" for job in JOBS)
        return End(f"{count:,}", service, Load(tokens=(token,), paths=paths, body="{}"))

    def completions(self):
        """By an administrator, who needs no reservation."""
        service, token = self.made("completions", "--admin")
        self.start(service)
        path = "/api/external/jobs/NUMBER/complete"
        load = Load(FEW_CONNECTIONS, tokens=(token,), paths=(path,))
        return [End(size(count), service, dataclasses.replace(load, body=body(count)))
                for count in BODIES]

    def answer(self, count):
        service, token = self.made(f"answer-{count}", upstream=self.stub.ports[answer_file(count)])
        self.start(service)
        return End(size(count), service, Load(FEW_CONNECTIONS, tokens=(token,)))

    def started(self, name):
        service, token = self.made(name)
        self.start(service)
        return service, token

    def made(self, name, *rights, upstream=None):
        """A proxy with one client, not started yet."""
        home = self.folder / name
        home.mkdir()
        shutil.copytree(self.first.home / "keys", home / "keys")
        service = proxy.configured(home, upstream or self.stub.port, name)
        return service, proxy.add_client(service, "agent", *rights)

    def start(self, service):
        self.stack.enter_context(service)


def measure(row, rounds, deadline, folder, figures):
    """The ends of a row in turn, so that what changes on the machine changes for all of them."""
    for number in range(rounds):
        warm_up = sum(end.warm_up for end in row.ends)
        if deadline.left() < len(row.ends) * (SLICE + 0.5) + warm_up + RESERVE:
            break
        for end in turned(row.ends, number):
            end.before()
            wrk.fire(end.service.url, dataclasses.replace(end.load, seconds=end.warm_up), folder)
            sample = wrk.run(end.service, dataclasses.replace(end.load, seconds=SLICE), folder)
            figures.add_sample(f"{row.title}.{end.label}", sample)
    print(f"{row.title}: done, {deadline.left():.0f} s left", file=sys.stderr, flush=True)


def turned(ends, number):
    return ends if number % 2 == 0 else ends[::-1]


def write_answers(folder):
    """The files that the upstream answers with, job lists of these sizes; their names."""
    for count in ANSWERS:
        (folder / answer_file(count)).write_text(body(count))
    return [answer_file(count) for count in ANSWERS]


def answer_file(count):
    return f"answer-{count}.json"


def body(count):
    """A JSON object of this length in bytes: small objects in a list, as agents send them, and a
    text that fills what is left."""
    room = max(0, count - FRAME) // (len(json.dumps(TICKET)) + 2)
    whole = {"limit": 10, "tickets": [TICKET] * room, "text": ""} if room else {"text": ""}
    whole["text"] = "x" * (count - len(json.dumps(whole)))
    return json.dumps(whole)


def size(count):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count // unit} {name}"
    return f"{count} B"
