"""Payments as eth_account signs them: `python payments.py` prints the vectors of the Rust tests."""

import json
import random

from eth_account import Account

FIELDS = [
    {"name": "from", "type": "address"},
    {"name": "to", "type": "address"},
    {"name": "value", "type": "uint256"},
    {"name": "validAfter", "type": "uint256"},
    {"name": "validBefore", "type": "uint256"},
    {"name": "nonce", "type": "bytes32"},
]
NAMES = ["USD Coin", "USDC", "Euro Coin", "ü€𝄞 \u0000\n\"\\", "n" * 200]
PROTOCOL = {
    "key": "42" * 32,
    "name": "USD Coin",
    "version": "2",
    "chain_id": 8453,
    "contract": "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
    "to": "0x" + "11" * 20,
    "value": "5000000",
    "valid_before": 1_790_000_000,
    "nonce": "ab" * 32,
}


def typed_data(case):
    """The typed data of a case: domain, types and message."""
    domain = {
        "name": case["name"],
        "version": case["version"],
        "chainId": case["chain_id"],
        "verifyingContract": case["contract"],
    }
    message = {
        "from": Account.from_key(case["key"]).address,
        "to": case["to"],
        "value": int(case["value"]),
        "validAfter": 0,
        "validBefore": case["valid_before"],
        "nonce": bytes.fromhex(case["nonce"]),
    }
    return domain, {"TransferWithAuthorization": FIELDS}, message


def random_case(rng):
    return {
        "key": rng.randbytes(32).hex(),
        "name": rng.choice(NAMES),
        "version": rng.choice(["1", "2", "", "2.0.1"]),
        "chain_id": rng.choice([1, 10, 137, 8453, 84532, rng.randrange(1, 2**64)]),
        "contract": "0x" + rng.randbytes(20).hex(),
        "to": "0x" + rng.randbytes(20).hex(),
        "value": str(rng.choice([1, 5_000_000, 2**128 - 1, rng.randrange(1, 2**128)])),
        "valid_before": rng.randrange(240, 2**37),
        "nonce": rng.randbytes(32).hex(),
    }


def signed(case):
    signature = Account.sign_typed_data(case["key"], *typed_data(case))
    digest = signature.message_hash.hex()
    return case | {"digest": digest, "signature": signature.signature.hex()}


def vectors():
    """The case of protocol §10, then 200 random ones."""
    rng = random.Random(20261127)
    cases = [PROTOCOL, *(random_case(rng) for _ in range(200))]
    return "".join(json.dumps(signed(case)) + "\n" for case in cases)


if __name__ == "__main__":
    print(vectors(), end="")
