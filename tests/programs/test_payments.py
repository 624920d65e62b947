"""The typed data that the proxy signs, against eth_account: vectors, and payments over real calls."""

import base64
import http.server
import json
import pathlib
import time

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from payments import vectors
from proxy import command, local_session, serving
from verifier import JsonHandler, running

VECTORS = pathlib.Path(__file__).parent.parent / "vectors/payments/eth_account.jsonl"
WALLET = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"
PAYEE = "0x" + "11" * 20
USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
API = "https://www.agentpmt.com"
PURCHASE = "/api/external/credits/purchase"
TOOL = "/api/external/tools/a/actions/b/invoke"
CONFIG = f"""
[spending]
wallet = "{WALLET}"
networks = ["eip155:8453"]
payees = ["{PAYEE}"]
resources = ["{API}{PURCHASE}", "{API}{TOOL}"]
max_per_call = "5"
per_day = "50"
per_month = "50"
[[spending.assets]]
address = "{USDC}"
decimals = 6
name = "USD Coin"
version = "2"
"""
FIELDS = "from:address to:address value:uint256 validAfter:uint256 validBefore:uint256 nonce:bytes32"


def test_the_vectors_of_payments_are_those_of_eth_account():
    assert VECTORS.read_text() == vectors()


class Shop(http.server.ThreadingHTTPServer):
    """A facilitator that shares no code with the proxy: it recovers the signer of the typed data."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.amount = "5000000"
        self.nonces = set()

    def offer(self):
        return {
            "scheme": "exact",
            "network": "eip155:8453",
            "amount": self.amount,
            "asset": USDC,
            "payTo": PAYEE,
            "maxTimeoutSeconds": 60,
            "extra": {"name": "USD Coin", "version": "2"},
        }

    def error(self, envelope, path):
        """What is wrong with a payment, or None."""
        if envelope["x402Version"] != 2 or envelope["accepted"] != self.offer():
            return "it is not for the demand"
        if envelope["resource"] != {"url": API + path}:
            return "it is not for the resource"
        given = envelope["payload"]["authorization"]
        numbers = {name: int(given[name]) for name in ("value", "validAfter", "validBefore")}
        fields = [dict(zip(("name", "type"), field.split(":"))) for field in FIELDS.split()]
        domain = {"name": "USD Coin", "version": "2", "chainId": 8453, "verifyingContract": USDC}
        data = encode_typed_data(
            domain, {"TransferWithAuthorization": fields}, given | numbers
        )
        signer = Account.recover_message(data, signature=envelope["payload"]["signature"])
        if not signer.lower() == given["from"] == WALLET:
            return "it is not signed by its payer"
        if given["to"] != PAYEE or given["value"] != self.amount or given["validAfter"] != "0":
            return "it pays something else"
        if not 0 < numbers["validBefore"] - time.time() <= 60:
            return "it ends too late"
        if given["nonce"] in self.nonces:
            return "its nonce was used"
        self.nonces.add(given["nonce"])
        return None


class Handler(JsonHandler):
    def do_POST(self):
        self.body()
        payment = self.headers.get("x-payment")
        if payment is None:
            resource = {"url": API + self.path}
            demand = {"x402Version": 2, "resource": resource, "accepts": [self.server.offer()]}
            shown = base64.b64encode(json.dumps(demand).encode()).decode()
            return self.answer(402, demand, payment_required=shown)
        error = self.server.error(json.loads(base64.b64decode(payment)), self.path)
        self.answer(422 if error else 200, {"detail": error} if error else {"success": True})


@pytest.fixture
def paying(tmp_path):
    (tmp_path / "proxy.toml").write_text(CONFIG)
    (tmp_path / "proxy.toml").chmod(0o600)
    imported = command("wallet", "import", directory=tmp_path, password="secret", input="42" * 32)
    assert imported.returncode == 0, imported.stderr
    with running(Shop()) as shop:
        upstream = f"http://127.0.0.1:{shop.server_port}"
        with serving("--upstream", upstream, directory=tmp_path, password="secret") as address:
            yield shop, address


def test_payments_are_accepted_by_a_facilitator_that_is_not_ours(paying):
    shop, address = paying
    with local_session() as session:
        for amount in ("5000000", "4999999", "1"):
            shop.amount = amount
            body = {"wallet_address": WALLET, "credits": 500}
            answer = session.post(address + PURCHASE, json=body)
            assert answer.json() == {"success": True}, amount
        shop.amount = "2"
        answer = session.post(f"{address}{TOOL}?pay=x402", json={"text": "ü"})
        assert answer.json() == {"success": True}
        shop.amount = "5000001"
        answer = session.post(f"{address}{TOOL}?pay=x402", json={})
        assert answer.json()["code"] == "payment_not_allowed"
    assert len(shop.nonces) == 4
