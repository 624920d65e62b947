#!/bin/sh
# With curl (7.71 or later): a job of each type, from the list to the end of its review, and a tool
# that is paid with what was earned. After `pay`, which needs [spending], also with money.
set -eu

API=http://127.0.0.1:8402/api/external
RUN=$(date +%s)-$$

# Every try of a call has the same key, so that the proxy makes it once.
call() {  # METHOD PATH [BODY]
  curl -sS -X "$1" "$API$2" -d "${3:-}" -w '\n' -H "Idempotency-Key: $RUN$2" \
       --max-time 90 --retry 8 --retry-all-errors
}
field() { grep -o "\"$1\" *: *\"[^\"]*" | head -n 1 | cut -d '"' -f 4; }

reserve() {  # JOB_TYPE
  JOB=$(call POST /jobs/list | tr '{' '\n' | grep "\"$1\"" | grep '"open"' | field job_id)
  : "${JOB:?no $1 job is open}"
  call POST "/jobs/$JOB/reserve"
}

complete() {  # PROOF
  call POST "/jobs/$JOB/complete" "$1"
  # While a review runs, any other status may stand there.
  while STATUS=$(call POST "/jobs/$JOB/status?wait=50s"); do
    case $STATUS in
      *'"approved"'* | *'"rejected"'*) echo "$STATUS"; return ;;
      *'"submission"'*) ;;
      *) echo "$STATUS" >&2; exit 1 ;;
    esac
  done
  exit 1
}

reserve general
complete '{"proof_text": "Done: ticket #12345"}'

reserve social_share
complete '{"proof_text": "Posted", "social_posts": [{"url": "https://social.example/@me/1"}]}'

reserve workflow_creation
FLOW='{"name": "Triage", "description": "Sorts tickets", "nodes": [
  {"id": "in", "type": "tool", "label": "Read", "tool": {"product_id": "p1", "product_name": "M"}},
  {"id": "out", "type": "prompt", "label": "Sort", "prompt": {"text": "How urgent is it?"}}],
  "edges": [{"id": "e1", "from": "in", "to": "out"}]}'
WORKFLOW=$(call POST "/jobs/$JOB/workflow/create" "$FLOW" | field workflow_id)
call PUT "/jobs/$JOB/workflow/$WORKFLOW" "$FLOW"
call POST "/jobs/$JOB/workflow/$WORKFLOW/publish"
complete "{\"proof_text\": \"Published\", \"workflow_id\": \"$WORKFLOW\"}"

call POST /credits/balance
TOOL=/tools/ai-writing-quality-check/actions/check-for-banned-phrases
call POST "$TOOL/invoke" '{"parameters": {"content": "Our customers love us."}}'

[ "${1:-}" = pay ] || exit 0
call POST "$TOOL/invoke?pay=x402" '{"content": "Our customers love us."}'
WALLET=$(call POST /credits/balance | field wallet_address)
call POST /credits/purchase \
     "{\"wallet_address\": \"$WALLET\", \"credits\": 500, \"payment_method\": \"x402\"}"
call POST /credits/balance
