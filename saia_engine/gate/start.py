"""The verb `relay`: what must hold before one runs, and its process."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from saia_engine.edge import collector
from saia_engine.gate import own_code, slots, turn
from saia_engine.gate.command import FAILED, OK, REFUSED, say
from saia_engine.gate.journal import note, shown, take_over
from saia_engine.gate.ping import own_version
from saia_engine.gate.relay import Relay
from saia_engine.gate.routes_file import RoutesFile
from saia_engine.gate.stdio import Stdio
from saia_engine.routes import RoutesFault

LIFELINE = "SAIA_LIFELINE_FD"
OPEN_FILES_MAX = 65536


def start(routes: str, proxy: str, code: own_code.Stamps) -> int:
    """Runs a relay on stdin and stdout to its end; returns the exit code. `code` is what was installed before."""
    take_over()
    try:
        file = RoutesFile(Path(routes))
    except RoutesFault as fault:
        return _refuse("the routes are not readable", FAILED, str(fault))
    limits = file.table.proxies.get(proxy)
    if limits is None:
        return _refuse("refused", REFUSED, f"no proxy {proxy} in the routes")
    try:
        slots.take(Path(routes), file.table.installation, proxy, limits.relays)
    except slots.NoSlot:
        return _refuse(f"limit: {limits.relays} relays of this proxy run already", FAILED, "relays")
    except slots.SlotsFault as fault:
        return _refuse("no place for the relays' slots", FAILED, str(fault))
    _raise_open_files()
    collector.settle()
    note(f"relay for {proxy} begins")
    # Not asyncio.run, which would wait for a thread that hangs on a file system.
    try:
        loop = turn.Loop()
        why = loop.run_until_complete(_run(proxy, file, code, loop.alone))
    except OSError as exc:
        return _refuse("stdin and stdout must be pipes or sockets", FAILED, str(exc))
    note(f"relay for {proxy} ends: {shown(why)}")
    return OK


async def _run(proxy: str, file: RoutesFile, code: own_code.Stamps, alone: Callable[[], bool]) -> str:
    _watch_lifeline()
    relay = Relay(proxy, file, alone)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, relay.renew)
    watch = asyncio.create_task(own_code.follow(code, relay.renew))
    try:
        return await relay.run(Stdio(0, 1), f"saia-gate/{own_version()}")
    finally:
        watch.cancel()


def _refuse(line: str, code: int, detail: str) -> int:
    note(f"refused: {shown(detail)}")
    say(f"saia-gate: {line}")
    return code


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < goal:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))


def _watch_lifeline() -> None:
    """In the demo: at the end of this pipe, which its first process holds, we end too."""
    text = os.environ.get(LIFELINE, "")
    if not text.isdigit():
        return
    descriptor = int(text)

    def look() -> None:
        if not os.read(descriptor, 4096):
            os._exit(OK)

    asyncio.get_running_loop().add_reader(descriptor, look)
