"""An upstream that shares no code with the proxy: it takes the received bytes apart with `json`,
rebuilds the message, and recovers the signer with `eth_account`."""

import contextlib
import hashlib
import http.server
import json
import secrets
import threading

from eth_account import Account
from eth_account.messages import encode_defunct

ENVELOPE = ("wallet_address", "session_nonce", "request_id", "signature")


class Verifier(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.nonces = set()
        self.request_ids = set()
        # The last body of each path, without its envelope.
        self.bodies = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def session(self, body):
        nonce = secrets.token_hex(16)
        self.nonces.add(nonce)
        return {"session_nonce": nonce, "wallet_address": body["wallet_address"]}

    def verify(self, path, body):
        """The error in a signed call, or None."""
        wallet, nonce, request_id, signature = (body.pop(name) for name in ENVELOPE)
        self.bodies[path] = body
        if nonce not in self.nonces:
            return "Invalid session nonce"
        if (nonce, request_id) in self.request_ids:
            return "Duplicate request_id for this session_nonce"
        self.request_ids.add((nonce, request_id))
        bound, payload = signed_parts(path, body)
        digest = ""
        if payload is not None:
            canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
            digest = hashlib.sha256(canonical.encode()).hexdigest()
        message = "\n".join([
            "agentpmt-external",
            f"wallet:{wallet.lower()}",
            f"session:{nonce}",
            f"request:{request_id}",
            *bound,
            f"payload:{digest}",
        ])
        signer = Account.recover_message(encode_defunct(text=message), signature=signature)
        if signer.lower() != wallet.lower():
            return "Signature does not match wallet_address"
        return None


def signed_parts(path, body):
    """The two lines that bind a call, and the payload that is hashed; None if nothing is."""
    match path.removeprefix("/api/external/").split("/"):
        case ["jobs", "list"]:
            return scoped("job_list", "-"), {name: body[name] for name in ("limit", "skip")}
        case ["jobs", job, verb]:
            return scoped(f"job_{verb}", job), body if verb == "complete" else {}
        case ["credits", "balance"]:
            return scoped("balance", "-"), None
        case ["tools", _, "actions", _, "invoke"]:
            return ["method:POST", "path:" + path.removeprefix("/api")], body["parameters"]
        case ["tools", product, "invoke"]:
            return scoped("invoke", product), body["parameters"]
        case ["workflows", "active"]:
            return scoped("workflow_active", "-"), body.get("parameters", body)
        case ["workflows", workflow, "fetch"]:
            return scoped("workflow_fetch", workflow), None
        # This server takes an empty line for nothing, where the one above takes `{}`.
        case ["workflows", workflow, verb]:
            return scoped(f"workflow_{verb}", workflow), body.get("parameters", body or None)


def scoped(action, product):
    return [f"action:{action}", f"product:{product}"]


class JsonHandler(http.server.BaseHTTPRequestHandler):
    """Reads bodies and answers in JSON, and logs nothing."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # One packet an answer, not one for each header.

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Handler(JsonHandler):
    def do_POST(self):
        body = self.body()
        if self.path == "/api/external/auth/session":
            return self.answer(200, self.server.session(body))
        error = self.server.verify(self.path, body)
        self.answer(401 if error else 200, {"detail": error} if error else {"ok": True})


def verifying():
    return running(Verifier())


@contextlib.contextmanager
def running(server):
    """A server that answers meanwhile."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
