"""CPU time and memory of a process and its children, from the kernel's own accounting."""

import os
import pathlib

TICKS = os.sysconf("SC_CLK_TCK")
PROC = pathlib.Path("/proc")


def cpu_seconds(pid):
    """User and system time of the process and its children."""
    return sum(ticks(member) for member in family(pid)) / TICKS


def resident_mb(pid):
    """Resident memory of the process and its children, in MB of 10^6 bytes."""
    return sum(memory(member, "VmRSS") for member in family(pid)) * 1024 / 1e6


def peak_mb(pid):
    """The most resident memory since `forget_peak`, in MB."""
    return sum(memory(member, "VmHWM") for member in family(pid)) * 1024 / 1e6


def forget_peak(pid):
    """From now on, the peak counts anew."""
    for member in family(pid):
        (PROC / str(member) / "clear_refs").write_text("5")


def family(pid):
    """The process and all below it."""
    children = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            children.setdefault(parent(entry.name), []).append(int(entry.name))
    members = [pid]
    for member in members:
        members += children.get(member, [])
    return members


def parent(pid):
    fields = stat(pid)
    return int(fields[1]) if fields else None


def ticks(pid):
    fields = stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def stat(pid):
    """The fields after the name, which may hold anything; nothing of a process that has ended."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def memory(pid, field):
    """KiB."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0
