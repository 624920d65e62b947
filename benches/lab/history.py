"""The database of a proxy: filled before the proxy starts, as years of use would, and counted."""

import contextlib
import hashlib
import re
import sqlite3
import time

from . import proxy

JOURNAL = """
    INSERT INTO journal (seq, record, hash)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
    SELECT n, printf('{"action":"job_complete","padding":"%s","seq":%d}',
                     hex(zeroblob(150)), n), randomblob(32) FROM numbers
"""

RESERVATIONS = """
    INSERT INTO reservations (wallet, job, client, reservation_id, ends)
    VALUES (?, ?, ?, ?, ?)
"""

HOUR_MS = 3_600_000


def add_journal(service, records):
    """Records of the usual length. Nobody verifies them, so their hashes are any."""
    with database(service) as connection:
        connection.execute(JOURNAL, [records])


def add_clients(service, count, model="agent"):
    """More clients like one that is there; gives their tokens."""
    with database(service) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(clients)")]
        values = connection.execute("SELECT * FROM clients WHERE name = ?", [model]).fetchone()
        row = dict(zip(columns, values))
        tokens = [token(number) for number in range(count)]
        insert = f"INSERT INTO clients VALUES ({', '.join(':' + column for column in columns)})"
        connection.executemany(insert, (
            {**row, "name": f"agent-{number}", "token_hash": hashed(text)}
            for number, text in enumerate(tokens)))
    return tuple(tokens)


def use_clients(service):
    """All were here just now. The proxy notes the use of each once a minute, which a busy minute
    does not feel; in a run of seconds, the first call of every client would be such a one."""
    with database(service) as connection:
        connection.execute("UPDATE clients SET last_used = ?", [now_ms()])


def add_reservations(service, jobs, client="agent"):
    """A client's, each of one job, that run for an hour."""
    wallet = re.search(r"0x[0-9a-f]{40}", proxy.run(service.home, "wallet", "show"))[0]
    with database(service) as connection:
        connection.executemany(RESERVATIONS, (
            (wallet, job, client, f"r-{job}", now_ms() + HOUR_MS) for job in jobs))


def count_records(service):
    with database(service) as connection:
        return connection.execute("SELECT count(*) FROM journal").fetchone()[0]


def token(number):
    """A token as the proxy makes them, but of a number instead of randomness."""
    text = f"apmt_{number:048x}"
    return text + hashlib.sha256(text.encode()).hexdigest()[:8]


def hashed(text):
    return hashlib.sha256(text.encode()).digest()


def now_ms():
    return int(time.time() * 1000)


@contextlib.contextmanager
def database(service):
    """All of what is done, or nothing."""
    with contextlib.closing(sqlite3.connect(service.database, timeout=30)) as connection:
        with connection:
            yield connection
