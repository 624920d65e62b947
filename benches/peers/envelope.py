"""A signed `job_list` as an agent that signs by itself has to write it."""

import hashlib
import json
import os
import uuid

ENVELOPE = ("wallet_address", "session_nonce", "request_id", "signature")


def signed(body, nonce, signer):
    """The body that goes out."""
    sent = {name: value for name, value in body.items()
            if name not in ENVELOPE and value is not None}
    payload = {"limit": sent.get("limit", 50), "skip": sent.get("skip", 0)}
    request_id = str(uuid.uuid4())
    proof = signer.sign(message(signer.address, nonce, request_id, payload))
    envelope = zip(ENVELOPE, (signer.address, nonce, request_id, proof))
    return canonical({**sent, **payload, **dict(envelope)}).encode()


def message(wallet, nonce, request_id, payload):
    digest = hashlib.sha256(canonical(payload).encode()).hexdigest()
    return "\n".join((
        "agentpmt-external", f"wallet:{wallet}", f"session:{nonce}", f"request:{request_id}",
        "action:job_list", "product:-", f"payload:{digest}",
    ))


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def session(wallet):
    return canonical({"wallet_address": wallet}).encode()


class EthAccount:
    """Signs as the library's manual says; the environment decides what computes the curve."""

    def __init__(self, key):
        from eth_account import Account
        from eth_account.messages import encode_defunct

        self.account = Account.from_key(key)
        self.address = self.account.address.lower()
        self.encode = encode_defunct

    def sign(self, text):
        return "0x" + self.account.sign_message(self.encode(text=text)).signature.hex()


class Coincurve:
    """Signs with nothing but the curve's library and a hash: the fastest that Python offers."""

    def __init__(self, key):
        import coincurve
        from Crypto.Hash import keccak

        self.keccak = lambda data: keccak.new(data=data, digest_bits=256).digest()
        self.key = coincurve.PrivateKey(bytes.fromhex(key))
        public = self.key.public_key.format(compressed=False)[1:]
        self.address = "0x" + self.keccak(public)[-20:].hex()

    def sign(self, text):
        data = text.encode()
        digest = self.keccak(b"\x19Ethereum Signed Message:\n%d" % len(data) + data)
        made = self.key.sign_recoverable(digest, hasher=None)
        return f"0x{made[:64].hex()}{27 + made[64]:02x}"


def signer(backend):
    return (Coincurve if backend == "bare" else EthAccount)(os.environ["KEY"])
