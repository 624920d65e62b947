"""With `requests`: a job of each type, from the list to the end of its review, and a tool that is
paid with what was earned. After `pay`, which needs [spending], also with money."""

import sys
import time
import uuid

import requests

API = "http://127.0.0.1:8402/api/external"
FLOW = {"name": "Triage", "description": "Sorts tickets", "nodes": [
    {"id": "in", "type": "tool", "label": "In", "tool": {"product_id": "p1", "product_name": "M"}},
    {"id": "out", "type": "prompt", "label": "Sort", "prompt": {"text": "How urgent is it?"}},
], "edges": [{"id": "e1", "from": "in", "to": "out"}]}


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


jobs = call("/jobs/list")["jobs"]
for job_type in ("general", "social_share", "workflow_creation"):
    is_next = lambda job: job["job_type"] == job_type and job["status"] == "open"
    job = next(filter(is_next, jobs), None)
    if not job:
        raise SystemExit(f"no {job_type} job is open")
    path = "/jobs/" + job["job_id"]
    reserved = call(path + "/reserve")["job"]
    print(reserved["job_instructions"])
    proof = {"proof_text": "Done: ticket #12345", "reservation_id": reserved["reservation_id"]}
    if job_type == "social_share":
        proof["social_posts"] = [{"url": "https://social.example/@me/1"}]
    if job_type == "workflow_creation":
        proof["workflow_id"] = call(path + "/workflow/create", FLOW)["workflow_id"]
        workflow = f"{path}/workflow/{proof['workflow_id']}"
        call(workflow, FLOW, "PUT")
        call(workflow + "/publish")
    call(path + "/complete", proof)
    # While a review runs, any other status may stand there.
    waiting = path + "/status?wait=50s"
    while (status := call(waiting)["submission"]["status"]) not in ("approved", "rejected"):
        pass
    print(job["title"], "->", status)

print(call("/credits/balance")["balance_credits"], "credits")
tool = "/tools/ai-writing-quality-check/actions/check-for-banned-phrases"
used = call(tool + "/invoke", {"parameters": {"content": "Our customers love us."}})
print(used["result"], "for", used["charged_credits"])

if "pay" in sys.argv:
    print(call(tool + "/invoke?pay=x402", {"content": "Our customers love us."})["response"])
    wallet = call("/credits/balance")["wallet_address"]
    order = {"wallet_address": wallet, "credits": 500, "payment_method": "x402"}
    print(call("/credits/purchase", order)["status"])
    print(call("/credits/balance")["balance_credits"], "credits")
