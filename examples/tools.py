"""With `httpx`: a model that calls tools does a job. The tools are made from the proxy's OpenAPI
document, for any API of the form of OpenAI's chat completions."""

import json
import os
import sys
import time
import uuid

import httpx

PROXY = "http://127.0.0.1:8402"
TOKEN = os.environ.get("AGENTPMT_PROXY_TOKEN")
MODEL_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
MODEL = os.environ.get("OPENAI_MODEL", "gpt-5")
TASK = "Reserve one open general job, do what its instructions say, submit the proof, and tell its status."

proxy = httpx.Client(base_url=PROXY, timeout=90)
if TOKEN:
    proxy.headers["Authorization"] = f"Bearer {TOKEN}"
model = httpx.Client(timeout=120, headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"})

document = proxy.get("/openapi.json").raise_for_status().json()
calls, tools = {}, []
for path, methods in document["paths"].items():
    for method, operation in methods.items():
        name = operation.get("operationId", "")
        if not name.startswith("job_"):
            continue
        ids = {part["name"]: part["schema"] for part in operation.get("parameters", [])
               if part["in"] == "path"}
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        schema = body.get("schema", {})
        parameters = {"type": "object", "properties": {**schema.get("properties", {}), **ids},
                      "required": [*schema.get("required", []), *ids]}
        calls[name] = method, path, ids
        tools.append({"type": "function", "function": {
            "name": name, "description": operation["description"], "parameters": parameters}})


def use(name, arguments):
    """Makes the call of a tool. A refusal is an answer too: it tells the model what to do."""
    method, path, ids = calls[name]
    body = {field: value for field, value in arguments.items() if field not in ids}
    path = path.format(**arguments)
    # Every try has the same key, so that the proxy makes the call once.
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for pause in (1, 1, 2, 4, 8, 0):
        try:
            return proxy.request(method, path, json=body, headers=key).text
        except httpx.TransportError as error:
            told = f"no answer: {error!r}"
        time.sleep(pause)
    return told


messages = [{"role": "user", "content": TASK}]
for _ in range(20):
    asked = {"model": MODEL, "messages": messages, "tools": tools}
    answer = model.post(f"{MODEL_URL}/chat/completions", json=asked).raise_for_status().json()
    message = answer["choices"][0]["message"]
    messages.append(message)
    if not message.get("tool_calls"):
        sys.exit(print(message["content"]))
    for called in message["tool_calls"]:
        function = called["function"]
        content = use(function["name"], json.loads(function["arguments"]))
        messages.append({"role": "tool", "tool_call_id": called["id"], "content": content})
sys.exit("the model did not come to an end")
