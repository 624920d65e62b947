"""A signing sidecar as one would write it in Python: FastAPI in front, httpx behind."""

import contextlib
import os

import httpx
from fastapi import FastAPI, Request, Response

import envelope

API = "/api/external"


@contextlib.asynccontextmanager
async def lifespan(app):
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    upstream = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], limits=limits, timeout=60)
    async with upstream:
        app.state.upstream = upstream
        app.state.signer = envelope.signer("eth_account")
        began = await upstream.post(f"{API}/auth/session",
                                    content=envelope.session(app.state.signer.address))
        app.state.nonce = began.json()["session_nonce"]
        yield


app = FastAPI(lifespan=lifespan)


@app.post(f"{API}/jobs/list")
async def job_list(request: Request):
    state = request.app.state
    sent = envelope.signed(await request.json(), state.nonce, state.signer)
    answer = await state.upstream.post(
        f"{API}/jobs/list", content=sent, headers={"content-type": "application/json"})
    return Response(answer.content, answer.status_code,
                    media_type=answer.headers["content-type"])
