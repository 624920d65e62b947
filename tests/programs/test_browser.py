"""Pages in a browser: a foreign one gets nothing signed and reads nothing; one that is allowed works."""

import contextlib
import json
import shutil
import time

import pytest

from browser import PATIENCE, Pages, browsing
from proxy import ROOT, command, listening, local_session, serving

KEY_FILE = ROOT / "tests/vectors/keystore/eth-account-scrypt.json"
PASSWORD = "correct horse"


class Proxy:
    """A proxy with a wallet, in front of a sandbox of its own."""

    def __init__(self, directory, sandbox, address):
        self.directory, self.sandbox, self.address = directory, sandbox, address

    def requests(self):
        """The requests that it has logged: method, path, status and error.

        A window that shows a refusal asks for its icon, by itself and in the name of the proxy.
        """
        events = map(json.loads, (self.directory / "log").read_text().splitlines())
        names = ("method", "path", "status", "error")
        return [
            tuple(event.get(name) for name in names)
            for event in events
            if event["message"] == "request" and event["path"] != "/favicon.ico"
        ]

    def forwarded(self):
        """How many requests have reached the sandbox, sessions included."""
        return local_session().get(f"{self.sandbox}/sandbox/counts").json()["requests"]

    def signed(self):
        """The actions that it has signed for; a read may be on record a little later."""
        export = command("journal", "export", directory=self.directory)
        assert export.returncode == 0, export.stderr
        records = [json.loads(line)["record"] for line in export.stdout.splitlines()]
        records = [json.loads(it) if isinstance(it, str) else it for it in records]
        return [record["action"] for record in records if record["kind"] == "signed"]

    def lists_jobs(self):
        """That a program, which is no page, is served, and counted where the pages were not."""
        assert self.forwarded() == 0
        assert local_session().post(f"{self.address}/api/external/jobs/list").ok
        self.signed_one_list()

    def signed_one_list(self):
        """That one list of jobs, with its session, is all that went upstream."""
        assert self.forwarded() == 2
        until(self.signed)
        assert self.signed() == ["job_list"]


@contextlib.contextmanager
def proxy(directory, settings="", port=0):
    (directory / "keys").mkdir(mode=0o700)
    key = directory / "keys/wallet.json"
    shutil.copyfile(KEY_FILE, key)
    key.chmod(0o600)
    (directory / "proxy.toml").write_text(settings)
    with listening("sandbox") as sandbox, (directory / "log").open("w") as log:
        options = {"directory": directory, "password": PASSWORD, "log": log, "port": port}
        with serving("--upstream", sandbox, **options) as address:
            yield Proxy(directory, sandbox, address)


def until(is_so, seconds=PATIENCE):
    """Asks until it is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example"])
def test_a_page_of_another_origin_gets_nothing_signed_and_reads_nothing(host, tmp_path):
    with proxy(tmp_path) as target, Pages() as pages:
        report = f"{target.address}/api/external/jobs/page-csp-report/reserve"
        third = pages.origin("third.example")
        given = {"target": target.address, "label": "page", "third": third, "csp_report": report}
        # A busy browser drops one of the requests now and then, so it may try again.
        for number in range(3):
            with browsing(pages.url(host, "attack", **given), tmp_path / f"profile-{number}"):
                attempts = pages.report()
                expected = {
                    (attempt["arrives"], f"/api/external/jobs/page-{attempt['name']}/reserve")
                    for attempt in attempts
                    if attempt["arrives"]
                }
                missing = lambda: expected - {request[:2] for request in target.requests()}
                with contextlib.suppress(AssertionError):
                    until(lambda: not missing(), seconds=20)
            assert [attempt for attempt in attempts if attempt["read"] is not None] == []
            if not missing():
                break
        assert missing() == set()
        for request in target.requests():
            assert request[2:] == (403, "foreign_page"), request
        target.lists_jobs()


def test_a_page_whose_name_comes_to_mean_the_proxy_gets_nothing(tmp_path):
    with Pages() as elsewhere, contextlib.ExitStack() as first:
        pages = first.enter_context(Pages())
        url = pages.url("evil.example", "rebind", report=elsewhere.origin("127.0.0.1"))
        with browsing(url, tmp_path / "profile"):
            until(lambda: elsewhere.connections)
            # The same name and port, and from now on another server.
            first.close()
            with proxy(tmp_path, port=pages.port) as target:
                elsewhere.may_go_on.set()
                found = elsewhere.report()
                until(lambda: "/api/external/jobs/beacon/reserve" in str(target.requests()))
                for name, read in found.items():
                    assert read is None or '"code":"wrong_host"' in read, (name, read)
                assert sum(read is not None for read in found.values()) == 11, found
                assert len(target.requests()) >= len(found)
                for request in target.requests():
                    assert request[2:] == (421, "wrong_host"), request
                target.lists_jobs()


def test_a_page_that_is_allowed_can_list_jobs_and_no_other_can(tmp_path):
    with Pages() as pages, Pages() as others:
        with proxy(tmp_path, f'allowed_origins = "{pages.origin("app.example")}"') as target:
            for server, host in (
                (pages, "evil.example"),
                (pages, "sub.app.example"),
                (others, "app.example"),
            ):
                url = server.url(host, "caller", target=target.address)
                with browsing(url, tmp_path / f"{host}-{server.port}"):
                    assert server.report() == {"list": None, "update": None}, url
            assert target.forwarded() == 0
            url = pages.url("app.example", "caller", target=target.address)
            with browsing(url, tmp_path / "allowed"):
                found = pages.report()
            assert (found["list"]["status"], found["list"]["error"]) == (200, None), found
            assert found["list"]["body"]["jobs"] and found["list"]["id"], found
            assert found["update"]["error"] == "no_workflow_token", found
            target.signed_one_list()
