"""What the figures were measured on, and with what."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("saia", "asyncssh", "uvicorn", "uvloop", "httptools", "msgspec", "cryptography")


def facts() -> dict[str, Any]:
    return {
        "cpu": _line("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(_line("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "machine": platform.machine(),
    }


def load_average() -> float:
    """Of the last minute: what else ran, when it is read before anything is measured."""
    return round(os.getloadavg()[0], 2)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "openssh": _openssh()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _openssh() -> str:
    try:
        said = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    except OSError:
        return ""
    return said.partition(",")[0].strip()


def _line(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0"
