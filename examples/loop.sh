#!/bin/sh
# The job loop with curl (7.71 or later): a job of each type, from the list to the review.
set -eu

API=http://127.0.0.1:8402/api/external/jobs
RUN=$(date +%s)-$$

# Every try of a call has the same key, so that the proxy makes it once.
call() {  # METHOD PATH [BODY]
  curl -sS -X "$1" "$API$2" -d "${3:-}" -w '\n' -H "Idempotency-Key: $RUN$2" \
       --max-time 90 --retry 8 --retry-all-errors
}
field() { grep -o "\"$1\" *: *\"[^\"]*" | head -n 1 | cut -d '"' -f 4; }
job() { call POST /list | tr '{' '\n' | grep "\"$1\"" | field job_id; }

JOB=$(job general)
: "${JOB:?no general job is left}"
call POST "/$JOB/reserve"
call POST "/$JOB/complete" '{"proof_text": "Done: ticket #12345"}'
call POST "/$JOB/status"

# A job that wants a workflow.
JOB=$(job workflow_creation)
: "${JOB:?no workflow job is left}"
call POST "/$JOB/reserve"
FLOW='{"name": "Triage", "description": "Sorts tickets", "nodes": [{"id": "in"}, {"id": "out"}],
       "edges": [{"source": "in", "target": "out"}]}'
WORKFLOW=$(call POST "/$JOB/workflow/create" "$FLOW" | field workflow_id)
call PUT "/$JOB/workflow/$WORKFLOW" "$FLOW"
call POST "/$JOB/workflow/$WORKFLOW/publish"
call POST "/$JOB/complete" "{\"proof_text\": \"Published\", \"workflow_id\": \"$WORKFLOW\"}"
call POST "/$JOB/status"
