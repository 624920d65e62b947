"""With `httpx`: workers side by side that take the next job, do it, and wait for its review. Ends when
no job is left. `work` is the part that is yours."""

import asyncio
import datetime
import os
import uuid

import httpx

PROXY = "http://127.0.0.1:8402"
TOKEN = os.environ.get("AGENTPMT_PROXY_TOKEN")
# What this worker can do. A workflow is more than a text, as loop.py shows.
FILTER = {"job_type": ["general", "social_share"], "wait": "2s"}


class Refused(Exception):
    """An answer that the same call would get again."""


async def call(client, path, body=None):
    """Sends a call until it is answered. Every try has the same key, so that the proxy makes it once."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for pause in (1, 1, 2, 4, 8, 16, 32, 0):
        try:
            answer = await client.post(path, json=body or {}, headers=key)
        except httpx.TransportError as error:
            told = repr(error)
        else:
            if answer.is_success:
                return answer.json() if answer.content else None
            told = f"{answer.status_code} {answer.text}"
            if answer.status_code < 500 and "Retry-After" not in answer.headers:
                break
        await asyncio.sleep(pause)
    raise Refused(f"{path}: {told}")


async def work(job):
    """Reads the instructions, and returns the proof that the work was done."""
    proof = {"proof_text": "Done: " + job["title"]}
    if job["job_type"] == "social_share":
        proof["social_posts"] = [{"url": "https://social.example/@me/1"}]
    return proof


async def worker(client):
    while taken := await call(client, "/proxy/jobs/next", FILTER):
        job = taken["job"]
        path = "/api/external/jobs/" + job["job_id"]
        ends = datetime.datetime.fromisoformat(job["reserved_until"])
        left = ends - datetime.datetime.now(datetime.timezone.utc)
        try:
            # A minute remains to hand the proof in.
            proof = await asyncio.wait_for(work(job), left.total_seconds() - 60)
        except asyncio.TimeoutError:
            await call(client, f"/proxy/reservations/{job['job_id']}/release")
            continue
        await call(client, path + "/complete", proof)
        status = None
        while status not in ("approved", "rejected"):
            status = (await call(client, path + "/status?wait=50s"))["submission"]["status"]
        print(job["title"], "->", status)


async def main():
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    async with httpx.AsyncClient(base_url=PROXY, headers=headers, timeout=90) as client:
        await asyncio.gather(*(worker(client) for _ in range(4)))


asyncio.run(main())
