"""The verb `ping`: one line with versions and the state of the routes. Standard library alone."""

import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from saia_engine.gate.command import FAILED, OK, REFUSED
from saia_engine.gate.journal import note
from saia_engine.wire.frames import WIRE_VERSION


def ping(routes, proxy):
    """(exit code, line) for the proxy of that name."""
    try:
        table = json.loads(Path(routes).read_bytes())
        proxies, generation = table["proxies"], int(table["generation"])
        age_s = max(0, time.time() - Path(routes).stat().st_mtime)
    except Exception as exc:
        note(f"ping: routes are not readable: {exc}")
        return FAILED, f"{greeting()} routes unreadable"
    if proxy not in proxies:
        note("refused: this proxy is not named in the routes")
        return REFUSED, "saia-gate: refused"
    return OK, f"{greeting()} routes {generation} age {age_s:.0f}s"


def greeting():
    return f"saia-gate {own_version()} wire {WIRE_VERSION}"


def own_version():
    try:
        return version("saia")
    except PackageNotFoundError:
        return "unknown"
