"""With `mcp` (2.3 or later): the loop of a job by the tools of the Model Context Protocol."""

import asyncio
import os
import uuid

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

PROXY = "http://127.0.0.1:8402"
TOKEN = os.environ.get("AGENTPMT_PROXY_TOKEN")
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}


async def once(tool, arguments):
    """Connects, calls a tool, and leaves."""
    async with httpx2.AsyncClient(headers=HEADERS, timeout=90) as http:
        async with Client(streamable_http_client(PROXY + "/mcp", http_client=http)) as client:
            return await client.call_tool(tool, arguments)


async def call(tool, changes=False, **arguments):
    """Calls a tool until it is answered. Every try has the same key, so that the proxy makes it once."""
    if changes:
        arguments["idempotency_key"] = str(uuid.uuid4())
    for pause in (1, 1, 2, 4, 8, 16, 32, 0):
        try:
            result = await once(tool, arguments)
        except Exception as error:  # The connection broke, or there is none.
            told = repr(error)
        else:
            if not result.is_error:
                return result.structured_content
            told = result.structured_content
            if told.get("retry") == "never":
                break
        await asyncio.sleep(pause)
    raise SystemExit(f"{tool}: {told}")


async def main():
    while job := (await call("next_job", True, job_type=["general"], wait="2s")).get("job"):
        print(job["job_instructions"])
        await call("job_complete", True, job_id=job["job_id"], proof_text="Done: " + job["title"])
        status = None
        while status not in ("approved", "rejected"):
            known = await call("wait_for_review", job_id=job["job_id"])
            status = known["submission"]["status"]
        print(job["title"], "->", status)


asyncio.run(main())
