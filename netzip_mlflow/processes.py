"""Which process is meant, so that another one can tell later whether it is gone."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["dead", "me"]

LINUX = sys.platform == "linux"
PROC, INTERFACES = Path("/proc"), Path("/sys/class/net")
MACHINE_ID = Path("/etc/machine-id")
OUTSIDE = "pid:[4026531836]"  # the kernel's number for the namespace that no container has
_BY_BOOT = {"pid": int, "boot": str, "namespace": str, "ticks": int}
_BY_CLOCK = {"pid": int, "host": str, "started": int | float}
TOLERANCE_S = 60.0  # of start times by the clock, which may be set


def me() -> dict[str, Any]:
    """This process in plain values, the same ones as long as it lives.

    `host` and `pid` are for people. On Linux `boot`, `namespace` and `ticks` (since the boot) name
    the process whatever the clock and the host's name are; elsewhere its start time does, `started`
    in seconds. `machine` holds digests of what stays over a reboot; a container has none.
    """
    return dict(_of(os.getpid()))


def dead(owner: Any) -> bool:
    """Whether the process that `me` described is gone for certain; in doubt it lives, and what
    `me` never said is no process.

    Nobody can tell of another machine or another container; those with one host name, and copies
    of a machine, are other ones. Earlier versions wrote `host`, `pid` and `started` alone: these
    are believed outside containers only.
    """
    if not _described(owner):
        return False
    here = me()
    same_machine = any(each in here["machine"] for each in owner.get("machine", ()))
    if not owner.get("boot"):
        alike = owner["host"] == here["host"] and (same_machine or "machine" not in owner)
        return alike and not _contained() and _gone_by_clock(owner)
    if owner["boot"] != here.get("boot"):
        return same_machine
    return owner["namespace"] == here["namespace"] and _gone(owner["pid"], owner["ticks"])


def _described(owner: Any) -> bool:
    """Whether `me` may have said it, here or elsewhere; anybody can write a tag, or a file."""
    if not isinstance(owner, Mapping) or not isinstance(owner.get("machine", []), list):
        return False
    kinds = _BY_BOOT if owner.get("boot") else _BY_CLOCK
    named = all(isinstance(owner.get(key), kind) for key, kind in kinds.items())
    return named and 0 < owner["pid"] < 2**31


@functools.lru_cache(maxsize=1)
def _of(pid: int) -> Mapping[str, Any]:
    described = {"host": socket.gethostname(), "pid": pid, "machine": _machine()}
    boot, ticks = _text(PROC / "sys/kernel/random/boot_id"), _ticks(pid)
    if boot and ticks and _namespace():
        return described | {"boot": boot, "namespace": _namespace(), "ticks": ticks}
    return described | {"started": _started(pid) or 0.0}


def _contained() -> bool:
    """Whether this may be a container."""
    return LINUX and not _namespace().startswith(OUTSIDE)


def _namespace() -> str:
    """Of process ids and of start ticks; empty where /proc shows another one's, or is not there."""
    try:
        if (PROC / "self").readlink() != Path(str(os.getpid())):
            return ""
        spaces = [PROC / "self/ns" / kind for kind in ("pid", "time")]
        return " ".join(str(space.readlink()) for space in spaces if space.is_symlink())
    except OSError:
        return ""


def _gone(pid: int, ticks: int) -> bool:
    """Whether no process has this number, or one that began later, or one that has ended and waits
    for its parent to ask."""
    try:
        os.kill(pid, 0)  # /proc may hide other users' processes
    except ProcessLookupError:
        return True
    except OSError:
        pass
    fields = _fields(pid)
    return bool(fields) and (int(fields[19]) != ticks or fields[0] in {"Z", "X"})


def _ticks(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[19]) if fields else 0


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, behind the name (which may hold anything): the state is the first."""
    return _text(PROC / str(pid) / "stat").rpartition(")")[2].split()


def _gone_by_clock(owner: Mapping[str, Any]) -> bool:
    import psutil

    try:
        started = _started(owner["pid"])
    except psutil.AccessDenied:
        return False
    return started is None or abs(started - owner["started"]) > TOLERANCE_S


def _started(pid: int) -> float | None:
    """Seconds by the clock; None where there is no such process."""
    import psutil

    try:
        return round(psutil.Process(pid).create_time(), 2)
    except psutil.NoSuchProcess:
        return None


def _machine() -> list[str]:
    """One digest for each network device, with the system's id: either alone has copies."""
    if _contained():
        return []
    system = _text(MACHINE_ID)
    digests = (hashlib.sha256(f"{system} {a}".encode()).hexdigest()[:16] for a in _addresses())
    return sorted(set(digests)) if system or not LINUX else []


def _addresses() -> Iterator[str]:
    """Of the network's hardware; those that a program has chosen are not a machine's own."""
    if LINUX:
        for file in INTERFACES.glob("*/address"):
            if (file.parent / "device").exists() and _text(file):
                yield _text(file)
        return
    import psutil

    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            octets = each.address.replace("-", ":").split(":")
            if each.family == psutil.AF_LINK and len(octets) == 6 and not int(octets[0], 16) & 2:
                yield ":".join(octets).lower()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
