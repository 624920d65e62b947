"""A Python agent that lists jobs, one call after another over one connection: `agent.py URL
SECONDS`. With TOKEN it calls the proxy; without, it signs by itself and calls the upstream."""

import json
import os
import statistics
import sys
import time

import httpx

import envelope

API = "/api/external"
BODY = {"limit": 10}
WARM_UP = 50
HEADERS = {"content-type": "application/json"}


def main(url, seconds):
    with httpx.Client(base_url=url, timeout=60) as client:
        call = through_proxy(client) if "TOKEN" in os.environ else by_itself(client)
        for _ in range(WARM_UP):
            call()
        print(json.dumps(measured(call, seconds)))


def through_proxy(client):
    headers = {**HEADERS, "authorization": f"Bearer {os.environ['TOKEN']}"}
    return lambda: listed(client, envelope.canonical(BODY), headers)


def by_itself(client):
    signer = envelope.signer(os.environ["BACKEND"])
    began = client.post(f"{API}/auth/session", content=envelope.session(signer.address))
    nonce = began.json()["session_nonce"]
    return lambda: listed(client, envelope.signed(BODY, nonce, signer), HEADERS)


def listed(client, body, headers):
    answer = client.post(f"{API}/jobs/list", content=body, headers=headers)
    answer.raise_for_status()
    return answer.json()["jobs"]


def measured(call, seconds):
    """How often it called in all; its own CPU time a call and the median time of one, in µs."""
    times, end = [], time.monotonic() + seconds
    cpu = time.process_time()
    while (begun := time.perf_counter()) and time.monotonic() < end:
        call()
        times.append(time.perf_counter() - begun)
    cpu = time.process_time() - cpu
    return {"calls": WARM_UP + len(times), "cpu": cpu / len(times) * 1e6,
            "p50": statistics.median(times) * 1e6}


main(sys.argv[1], float(sys.argv[2]))
