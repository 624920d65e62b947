"""The whole loop with a client that is made from the OpenAPI document, and is found as `client`."""

import json
import sys

from client import Client
from client.api.jobs import job_complete, job_list, job_reserve, job_status
from client.models import JobCompleteBody, JobListBody

with Client(base_url=sys.argv[1], httpx_args={"trust_env": False}) as client:
    jobs = job_list.sync(client=client, body=JobListBody(limit=20)).jobs
    job_id = next(job.job_id for job in jobs if job.job_type == "general" and job.status == "open")
    reserved = job_reserve.sync(job_id, client=client)
    proof = JobCompleteBody(proof_text="done", reservation_id=reserved.job.reservation_id)
    job_complete.sync(job_id, client=client, body=proof)
    status = job_status.sync(job_id, client=client)
    refused = job_complete.sync(job_id, client=client, body=JobCompleteBody(proof_text="x"))
    print(json.dumps([status.submission.status, refused["code"]]))
