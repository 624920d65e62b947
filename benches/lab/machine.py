"""Which machine and which versions a figure is of."""

import os
import platform
import re
import subprocess

from . import install, paths


def description():
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "agentpmt-proxy": said(r"\S+$", paths.BINARY, "--version"),
        "rustc": said(r"[\d.]+", "rustc", "--version"),
        "nginx": said(r"[\d.]+", "nginx", "-v"),
        "wrk": said(r"[\d.]+", "wrk", "-v"),
        **peers(),
    }


def peers():
    if not paths.PYTHON.exists():
        return {}
    return {
        "Python": platform.python_version(),
        **requirements(),
        "Node": said(r"[\d.]+", install.node(), "--version"),
        **dependencies(),
    }


def requirements():
    text = (paths.PEERS / "requirements.txt").read_text()
    return dict(re.findall(r"^([\w-]+).*==(.*)$", text, re.MULTILINE))


def dependencies():
    text = (paths.PEERS / "package.json").read_text()
    return dict(re.findall(r'"(\w+)": "([\d.]+)"', text))


def cpu_model():
    with open("/proc/cpuinfo") as info:
        found = re.search(r"^model name\s*:\s*(.*)$", info.read(), re.MULTILINE)
    return found[1] if found else platform.machine()


def said(pattern, *command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    found = re.search(pattern, (done.stdout + done.stderr).strip())
    return found[0] if found else "?"
