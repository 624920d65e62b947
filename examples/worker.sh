#!/bin/sh
# With curl (7.71 or later): takes the next job, does it, and waits for its review, until no job is
# left. `work` is the part that is yours. Run as many side by side as you like.
set -eu

PROXY=http://127.0.0.1:8402
RUN=$(date +%s)-$$
STEP=0

# Every try of a call has the same key, so that the proxy makes it once.
call() {  # PATH [BODY]
  set -- "$1" "${2:-}" -H "Idempotency-Key: $RUN-$STEP"
  [ -z "${AGENTPMT_PROXY_TOKEN:-}" ] || set -- "$@" -H "Authorization: Bearer $AGENTPMT_PROXY_TOKEN"
  URL=$PROXY$1 BODY=$2
  shift 2
  curl -sS -X POST "$URL" -d "$BODY" "$@" --fail-with-body --max-time 90 --retry 8 --retry-all-errors
}
field() { grep -o "\"$1\" *: *\"[^\"]*" | head -n 1 | cut -d '"' -f 4; }

# Reads the job from its standard input, and prints the proof that the work was done.
work() { echo "{\"proof_text\": \"Done: $(field title)\"}"; }

while STEP=$((STEP + 1)) && TAKEN=$(call /proxy/jobs/next '{"job_type": ["general"], "wait": "2s"}') && [ "$TAKEN" ]; do
  JOB=$(echo "$TAKEN" | field job_id)
  PROOF=$(echo "$TAKEN" | work)
  STEP=$((STEP + 1))
  call "/api/external/jobs/$JOB/complete" "$PROOF" >/dev/null
  STATUS=
  until case $STATUS in *'"approved"'* | *'"rejected"'*) true ;; *) false ;; esac; do
    STEP=$((STEP + 1))
    STATUS=$(call "/api/external/jobs/$JOB/status?wait=50s")
  done
  echo "$STATUS"
done
