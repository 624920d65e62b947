"""Random JSON texts: legal, and as unusual as they may be."""

import json
import string

CHARACTERS = [
    *string.printable,
    *"\x00\x01\x1f\x7f\x80\xa0éßñ\u2028\u2029\ufeff\uffff漢字✓—e\u0301",
    "\ue000", "\U0001f680", "\U0001f468\u200d\U0001f469", "\U0010ffff",
]
INTEGERS = [0, -1, 2**53, 2**53 + 1, 2**63, 2**64, -(2**64), 10**20, 10**21, 10**39 + 7]
FLOATS = [
    "0.0", "-0.0", "-0", "50.0", "1e3", "1E5", "1e16", "1e20", "1e21", "1E+22", "1e-4", "1e-5",
    "0.00001", "1.5e300", "5e-324", "1.7976931348623157e308", "0.30000000000000004", "2.50e1",
    "1234567890123456.7", "123456789012345680001.0", "9007199254740993.0", "4.35", "1e23",
]


def random_body(rng):
    """The text of an object for `job_complete`."""
    fields = [(random_string(rng), random_value(rng, 4)) for _ in range(rng.randrange(6))]
    fields += [("proof_text", json.dumps(random_string(rng))), ("workflow_id", "null")]
    fields += rng.sample([("signature", '"0xbad"'), ("request_id", "7"), ("deep", "[[[{}]]]")], 1)
    rng.shuffle(fields)
    return random_object(rng, fields)


def random_value(rng, depth):
    kinds = ["string", "integer", "float", "word"] + ["array", "object"] * (depth > 0)
    match rng.choice(kinds):
        case "string":
            return string_text(rng, random_string(rng))
        case "integer":
            return str(rng.choice(INTEGERS) if rng.random() < 0.5 else rng.randrange(-10**40, 10**40))
        case "float":
            return random_float(rng)
        case "word":
            return rng.choice(["true", "false", "null"])
        case "array":
            return f"[{','.join(random_value(rng, depth - 1) for _ in range(rng.randrange(4)))}]"
        case "object":
            names = [random_string(rng) for _ in range(rng.randrange(4))]
            return random_object(rng, [(name, random_value(rng, depth - 1)) for name in names])


def random_object(rng, fields):
    space = rng.choice(["", " ", "\n\t"])
    return "{" + ",".join(f"{space}{string_text(rng, n)}{space}:{v}" for n, v in fields) + "}"


def random_float(rng):
    match rng.randrange(3):
        case 0:
            return rng.choice(FLOATS)
        case 1:
            # Often just between two shortest texts, of which one must be chosen.
            return repr(rng.randrange(2**53) / 2 ** rng.randrange(1, 13))
    digits = "".join(rng.choices(string.digits, k=rng.randrange(1, 25)))
    return f"{rng.choice(['', '-'])}{rng.randrange(10)}.{digits}e{rng.randrange(-330, 300)}"


def random_string(rng):
    return "".join(rng.choices(CHARACTERS, k=rng.randrange(8)))


def string_text(rng, text):
    """Escaped or raw, as senders differ."""
    return json.dumps(text, ensure_ascii=rng.random() < 0.5)
