"""The commands and programs of the README and the manual, and the examples, as they stand."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from proxy import (
    ADDRESS, BINARY, KEY_FILE, PASSWORD, ROOT, local_session, proxy_of, sandbox, with_wallet,
)

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "src/manual").glob("*.md"))]
SANDBOX = "http://127.0.0.1:8403"
FIRST_JOB = "68f0a1c27b3e4d5f60718201"
PAID_URL = "https://www.agentpmt.com/api/external"
TOOL = "ai-writing-quality-check/actions/check-for-banned-phrases"

EXAMPLES = pytest.mark.parametrize(
    "command",
    [["sh", "loop.sh"], [sys.executable, "loop.py"], ["node", "loop.mjs"]],
    ids=lambda command: command[1],
)


def blocks(document):
    """The language and the text of every block."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def run(command, home, **environment):
    """Runs a command to its end; gives what it prints."""
    done = subprocess.run(
        command,
        cwd=home,
        env={"PATH": f"{home}/bin:{os.environ['PATH']}", **environment},
        input="",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def new_home(folder):
    """A folder with the program, a cargo that has built it, a strict curl, and a key file to import."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/agentpmt-proxy").symlink_to(BINARY)
    cargo = folder / "bin/cargo"
    # `cargo run … -- WORDS` runs the program, and all else is done already.
    cargo.write_text(
        '#!/bin/sh\nuntil [ "$1" = -- ]; do [ $# -gt 0 ] || exit 0; shift; done\nshift\n'
        'exec agentpmt-proxy "$@"\n'
    )
    cargo.chmod(0o755)
    (folder / ".curlrc").write_text("fail\n")
    name = "UTC--2026-01-01T00-00-00Z--17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"
    shutil.copy(KEY_FILE, folder / name)
    return folder


@pytest.fixture
def home(tmp_path):
    """A folder with a wallet."""
    return with_wallet(new_home(tmp_path / "home"))


@contextlib.contextmanager
def served(line, home, upstream):
    """What a line of a shell starts, on a free port; gives its address."""
    process = subprocess.Popen(
        ["sh", "-euc", f"exec {line} --listen 127.0.0.1:0"],
        cwd=home,
        env={
            "PATH": f"{home}/bin:{os.environ['PATH']}",
            "AGENTPMT_PROXY_PASSWORD": PASSWORD,
            "AGENTPMT_PROXY_UPSTREAM__URL": upstream,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        first = process.stdout.readline()
        assert "listens on http://" in first, (line, first)
        yield "http://" + first.split("http://")[1].strip()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def serves(line):
    return re.match(r"(agentpmt-proxy|cargo run .*--) (serve|sandbox)\b", line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_commands_and_programs_of_a_document_run(document, home, tmp_path):
    """All in one folder with a wallet and a proxy, but for those that begin with a wallet of their own."""
    with contextlib.ExitStack() as stack:
        upstream, _ = stack.enter_context(sandbox())
        address, _ = stack.enter_context(proxy_of(upstream, home))
        for number, (language, text) in enumerate(blocks(document)):
            text = text.replace(ADDRESS, address).replace(SANDBOX, upstream)
            if language == "python":
                run([sys.executable, "-c", text], home)
            elif language == "sh":
                alone = re.search("wallet (new|import)", text)
                place = new_home(tmp_path / str(number)) if alone else home
                *lines, last = text.splitlines()
                if serves(last):
                    run(["sh", "-euc", "\n".join(lines)], place, AGENTPMT_PROXY_PASSWORD=PASSWORD)
                    address = stack.enter_context(served(last, place, upstream))
                else:
                    environment = {
                        "AGENTPMT_PROXY_PASSWORD": PASSWORD,
                        "AGENTPMT_PROXY_LISTEN": address.removeprefix("http://"),
                    }
                    if document.name != "errors.md":
                        # There is a .curlrc, by which curl fails when the answer is an error.
                        environment["HOME"] = str(place)
                    out = run(["sh", "-euc", text], place, **environment)
            elif language == "json":
                shown, answered = json.loads(text), json.loads(out)
                assert {**answered, "request_id": shown["request_id"]} == shown
            else:
                # Nothing is left out: `toml` is read by the Rust tests, and `text` is a picture.
                assert language in ("toml", "text"), language


def begun(command, home, address, *words):
    """Starts an example; gives what waits for its end, and gives what it printed."""
    name = command[-1]
    text = (ROOT / "examples" / name).read_text()
    assert ADDRESS in text
    (home / name).write_text(text.replace(ADDRESS, address))
    process = subprocess.Popen(
        [*command, *words],
        cwd=home,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def end():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)
        return out

    return end


def each_is_done_once(counts):
    """One job of each type, and one use of a tool."""
    for what in ("submissions", "accepted"):
        assert sorted(counts()[what].values())[-4:] == [0, 1, 1, 1], (what, counts())
    spent = [entry["credits"] for entry in counts()["entries"] if entry["credits"] < 0]
    assert spent == [-5], counts()


def inject(upstream, **fault):
    assert local_session().post(f"{upstream}/sandbox/faults", json=fault).ok


@EXAMPLES
def test_an_example_does_a_job_of_each_type(command, home):
    with sandbox() as (upstream, _), proxy_of(upstream, home) as (address, _):
        # The lines that the start prints, which a reader tries first.
        for path in ("list", f"{FIRST_JOB}/reserve", f"{FIRST_JOB}/status"):
            assert local_session().post(f"{address}/api/external/jobs/{path}").ok
        out = begun(command, home, address)()
    if command[-1] == "loop.sh":
        # Each answer to complete, and the last one to status, has it for the job and the submission.
        assert out.count('"status":"submitted"') == 6, out
        assert out.count('"status":"approved"') == 6, out
        assert out.count('"status":"completed"') == 3, out
        assert '"charged_credits":5' in out, out
        assert '"status":"published"' in out, out
    else:
        assert out.count("-> approved") == 3, out
        assert out.endswith("for 5\n"), out


@EXAMPLES
def test_an_example_pays_for_a_tool_and_for_credits_once(command, home):
    toml = next(text for language, text in blocks(ROOT / "src/manual/paying.md") if language == "toml")
    resources = f"{PAID_URL}/credits/purchase", f"{PAID_URL}/tools/{TOOL}/invoke"
    toml = re.sub(r"resources = \[[^]]*\]", f"resources = {json.dumps(resources)}", toml)
    (home / "proxy.toml").write_text(toml)
    with sandbox() as (upstream, counts), proxy_of(upstream, home) as (address, _):
        begun(command, home, address, "pay")()
        each_is_done_once(counts)
        assert [payment["value"] for payment in counts()["payments"]] == ["50000", "5000000"]
        assert counts()["entries"][-1]["credits"] == 500


@EXAMPLES
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut_after", "action": "job_complete", "times": 1},
        {"kind": "slow", "delay": "300ms"},
        {"kind": "status_429", "times": 2},
    ],
    ids=lambda fault: fault["kind"],
)
def test_an_example_in_trouble_does_each_job_once(command, fault, home):
    with sandbox() as (upstream, counts), proxy_of(upstream, home) as (address, _):
        inject(upstream, **fault)
        begun(command, home, address)()
        each_is_done_once(counts)
        assert counts()["faults"][fault["kind"]]


@EXAMPLES
def test_an_example_whose_proxy_is_killed_in_the_middle_does_each_job_once(command, home):
    with sandbox() as (upstream, counts):
        inject(upstream, kind="slow", action="job_complete", times=1, delay="60s")
        with proxy_of(upstream, home) as (address, process):
            end = begun(command, home, address)
            while "slow" not in counts()["faults"]:
                time.sleep(0.01)
            os.kill(process, signal.SIGKILL)
        with proxy_of(upstream, home, port=address.rsplit(":")[-1]):
            end()
        each_is_done_once(counts)
