"""What the proxy signs, against a verifier that is not ours."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from bodies import random_body
from proxy import command, local_session, serving
from verifier import ENVELOPE, verifying

BODIES = 3000
# Calls that are made at once share the syncs of the disk.
CONNECTIONS = 8
KEY = "0x" + "42" * 32
WALLET = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"


@pytest.fixture(scope="module")
def upstream():
    with verifying() as server:
        yield server


@pytest.fixture(scope="module")
def api(upstream, tmp_path_factory):
    """The address of the API at a proxy in front of the verifier."""
    directory = tmp_path_factory.mktemp("verifier")
    imported = command("wallet", "import", directory=directory, password="secret", input=KEY)
    assert imported.returncode == 0, imported.stderr
    arguments = ["--upstream", upstream.url]
    with serving(*arguments, directory=directory, password="secret") as address:
        yield f"{address}/api/external"


@pytest.fixture(scope="module")
def jobs(api):
    return f"{api}/jobs"


def test_every_job_call_is_accepted(jobs):
    with local_session() as session:
        for path in ("list", "j-1/reserve", "j-1/status", "j-1/complete"):
            answer = session.post(f"{jobs}/{path}")
            assert answer.json() == {"ok": True}, path


def test_every_signed_call_about_credits_tools_and_workflows_is_accepted(api):
    instance = {"instance_id": "i-1"}
    for path, bodies in {
        "credits/balance": [{}],
        "tools/writer/actions/check-it/invoke": [{"parameters": {}}, {"parameters": {"a": [None]}, "b": 1}],
        "tools/p_1/invoke": [{"parameters": {"a": "ü"}}],
        "workflows/w-1/fetch": [{}],
        "workflows/active": [{}, instance],
        "workflows/w-1/start": [{}, instance, {"parameters": instance}],
        "workflows/w-1/end": [{"workflow_session_id": "s"}, {"parameters": {"workflow_session_id": "s"}}],
    }.items():
        for body in bodies:
            answer = local_session().post(f"{api}/{path}", json=body)
            assert answer.json() == {"ok": True}, (path, body)


def test_random_parameters_are_well_signed_with_the_path_of_the_tool(api, upstream):
    def check(session, number, parameters):
        body = f'{{"parameters":{parameters}}}'
        path = f"/tools/tool-{number}/actions/act_{number}/invoke"
        answer = session.post(api + path, data=body.encode())
        assert answer.json() == {"ok": True}, (number, body)
        arrived = upstream.bodies[f"/api/external{path}"]["parameters"]
        assert same(without_nulls(json.loads(parameters)), arrived), (number, body)

    check_all(check, random.Random(20261127), BODIES // 3)


def test_random_bodies_arrive_unchanged_and_well_signed(api, upstream):
    def check(session, number, body):
        # Of one job, only the first would go up.
        path = f"/jobs/random-{number}/complete"
        answer = session.post(api + path, data=body.encode())
        assert answer.json() == {"ok": True}, (number, body)
        assert same(expected(body), upstream.bodies[f"/api/external{path}"]), (number, body)

    check_all(check, random.Random(20260216), BODIES)


def test_an_envelope_with_a_wrong_signature_is_replaced(jobs):
    envelope = {name: "0x" + "00" * 65 for name in ENVELOPE} | {"wallet_address": WALLET}
    for path in ("list", "j-2/complete"):
        answer = local_session().post(f"{jobs}/{path}", json={**envelope, "proof_text": "x"})
        assert answer.json() == {"ok": True}, path


def check_all(check, rng, count):
    """Checks random bodies over several connections."""
    bodies = list(enumerate(random_body(rng) for _ in range(count)))

    def check_some(some):
        with local_session() as session:
            for number, body in some:
                check(session, number, body)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(check_some, (bodies[first::CONNECTIONS] for first in range(CONNECTIONS))))


def expected(body):
    """What of a body has to arrive: all but the envelope and top-level nulls."""
    return {k: v for k, v in without_nulls(json.loads(body)).items() if k not in ENVELOPE}


def without_nulls(fields):
    return {name: value for name, value in fields.items() if value is not None}


def same(ours, theirs):
    """Equality in which an integral float is the integer that has its shortest digits."""
    if isinstance(ours, float) and isinstance(theirs, int):
        return ours == float(theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs
