"""The typed data that the proxy signs, against eth_account."""

import pathlib

from payments import vectors

VECTORS = pathlib.Path(__file__).parent.parent / "vectors/payments/eth_account.jsonl"


def test_the_vectors_of_payments_are_those_of_eth_account():
    assert VECTORS.read_text() == vectors()
