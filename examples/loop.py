"""The job loop with `requests`: a job of each type, from the list to the review."""

import time
import uuid

import requests

API = "http://127.0.0.1:8402/api/external/jobs"
FLOW = {"name": "Triage", "description": "Sorts tickets", "nodes": [{"id": "in"}, {"id": "out"}],
        "edges": [{"source": "in", "target": "out"}]}


def call(path, body={}, method="POST"):
    """Sends a call until it is answered. Every try has the same key, so that the proxy makes it once."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for pause in (1, 1, 2, 4, 8, 16, 32, 0):
        try:
            answer = requests.request(method, API + path, json=body, headers=key, timeout=90)
        except requests.RequestException as error:
            told = error
        else:
            if answer.ok:
                return answer.json()
            told = f"{answer.status_code} {answer.text}"
            if answer.status_code < 500 and "Retry-After" not in answer.headers:
                break
        time.sleep(pause)
    raise SystemExit(f"{path}: {told}")


jobs = call("/list", {"limit": 10})["jobs"]
for job_type in ("general", "workflow_creation"):
    job = next((job for job in jobs if job["job_type"] == job_type), None)
    if not job:
        raise SystemExit(f"no {job_type} job is left")
    path = "/" + job["job_id"]
    reserved = call(path + "/reserve")["job"]
    print(reserved["job_instructions"])
    proof = {"proof_text": "Done: ticket #12345", "reservation_id": reserved["reservation_id"]}
    if job_type == "workflow_creation":
        proof["workflow_id"] = call(path + "/workflow/create", FLOW)["workflow_id"]
        workflow = f"{path}/workflow/{proof['workflow_id']}"
        call(workflow, FLOW, "PUT")
        call(workflow + "/publish")
    call(path + "/complete", proof)
    while (status := call(path + "/status")["submission"]["status"]) not in ("approved", "rejected"):
        time.sleep(1)
    print(job["title"], "->", status)
