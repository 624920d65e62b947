"""Where things are."""

import pathlib

BENCHES = pathlib.Path(__file__).resolve().parents[1]
ROOT = BENCHES.parent
PEERS = BENCHES / "peers"
LOAD_SCRIPT = BENCHES / "lab/load.lua"

TARGET = ROOT / "target/compare"
VENV = TARGET / "venv"
PYTHON = VENV / "bin/python"
NODE_MODULES = TARGET / "node"

BINARY = ROOT / "target/release/agentpmt-proxy"
