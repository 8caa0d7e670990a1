"""A night's trouble in the demo, to practise on: one instance hangs, and somebody has taken in a bad configuration."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path

from saia_engine.client import ClientError, EngineClient, Tables
from saia_engine.demo.site import Pace, engine_toml

PACE = Pace(
    time_limit_s=3600,
    lead_floor_s=60,
    # Whoever practises is given the time, and has to act.
    defaults=('unready_deadline = "30m"', "auto_revert = false"),
)
HANGS = "chat"
SPOILT = "embed"
FLAW = ("--model", "--modle")
REASON = "the flags of the new release"
LOOK_S = 0.5
SERVICE = b"saia_engine.demo.llm"


class Drill:
    """Makes the trouble once all runs, in a thread of its own; `end` undoes what would be in the way of the end."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self._config = directory / "engine.toml"
        self._socket = socket
        self._hangs: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drill", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._hangs is not None:
            with contextlib.suppress(OSError):
                os.kill(self._hangs, signal.SIGCONT)

    def _run(self) -> None:
        with contextlib.suppress(ClientError, OSError):  # the engine has ended, and the demo with it
            asyncio.run(self._make_trouble())

    async def _make_trouble(self) -> None:
        async with EngineClient(self._socket) as engine:
            while not _is_proven(state := await engine.state()):
                if self._over.wait(LOOK_S):
                    return
            self._hang(sorted(i for i, row in state.instances.items() if row.service == HANGS)[0])
            self._config.write_text(spoilt_toml(), encoding="utf-8")
            await engine.apply_config(reason=REASON)

    def _hang(self, instance: str) -> None:
        mark = os.fsencode(f"SAIA_INSTANCE={instance}")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _says(entry / "cmdline", SERVICE) and _says(entry / "environ", mark):
                self._hangs = int(entry.name)
                os.kill(self._hangs, signal.SIGSTOP)


def spoilt_toml() -> str:
    """The configuration with a flag that the service does not know."""
    sound, mark, spoilt = engine_toml(PACE).partition(f"[services.{SPOILT}]")
    return sound + mark + spoilt.replace(*FLAW, 1)


def _is_proven(state: Tables) -> bool:
    """The revision that runs is one to go back to."""
    proven = {event.subject for event in state.events.values() if event.code == "rollout-done"}
    return {HANGS, SPOILT} <= proven


def _says(file: Path, word: bytes) -> bool:
    try:
        return word in file.read_bytes().split(b"\0")
    except OSError:
        return False  # it has ended
