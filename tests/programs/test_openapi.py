"""The OpenAPI document against programs that read it: clients are made from it, and a fuzzer tries it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import openapi_spec_validator

from proxy import ROOT, command, serving

TOOLS = pathlib.Path(sys.executable).parent
MODULES = ROOT / "target/node/node_modules"
HERE = pathlib.Path(__file__).parent

# A purchase needs a policy, and a key or a job counts once: not all that is well-formed is taken. The
# sandbox is as lenient as the API, which alone checks most fields.
UNCHECKED = "positive_data_acceptance,negative_data_rejection"


def run(*arguments, directory):
    """Runs a program to its end; gives what it prints."""
    environment = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(directory)}
    done = subprocess.run(
        arguments, cwd=directory, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_document(directory):
    """Writes the document; gives its file."""
    file = directory / "openapi.json"
    file.write_text(command("openapi").stdout)
    return file


def test_the_document_is_valid(tmp_path):
    openapi_spec_validator.validate(json.loads(with_document(tmp_path).read_text()))


def test_a_client_in_python_runs_the_loop(tmp_path):
    settings = tmp_path / "settings.yml"
    settings.write_text("post_hooks: []\n")
    generate = ["openapi-python-client", "generate", "--meta", "none", "--config", settings]
    run(*generate, "--path", with_document(tmp_path), "--output-path", tmp_path / "client", directory=tmp_path)
    shutil.copy(HERE / "loop_with_client.py", tmp_path)
    with serving("--sandbox") as address:
        printed = run(sys.executable, "loop_with_client.py", address, directory=tmp_path)
    assert json.loads(printed) == ["submitted", "already_submitted"]


def test_a_client_in_typescript_is_well_typed_and_runs_the_loop(tmp_path):
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(HERE / "loop.ts", tmp_path)
    programs = MODULES / ".bin"
    run(programs / "openapi-typescript", with_document(tmp_path), "-o", "api.d.ts", directory=tmp_path)
    options = ["--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    run(programs / "tsc", *options, "loop.ts", directory=tmp_path)
    with serving("--sandbox") as address:
        printed = run("node", "loop.js", address, directory=tmp_path)
    assert json.loads(printed) == ["submitted", "already_submitted"]


def test_a_fuzzer_finds_no_answer_that_is_not_described(tmp_path):
    with serving("--sandbox") as address:
        arguments = ["--seed", "20261128", "--max-examples", "10", "--exclude-checks", UNCHECKED]
        # The one stops every signature; the other has no end.
        for path in ("/proxy/freeze", "/proxy/events"):
            arguments += ["--exclude-path", path]
        phases = ["--phases", "examples,coverage,fuzzing"]
        document = f"{address}/openapi.json"
        run("schemathesis", "run", document, *arguments, *phases, directory=tmp_path)
