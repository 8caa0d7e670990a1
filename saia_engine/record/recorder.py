"""Keeps the record: a sample of the hub's rows each few seconds, written by a thread of its own.

On the event loop only the keys that changed are picked out; rows are encoded already. A disk that is full, broken or
hangs is told of in `fault`, and costs the samples of that time, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from saia_engine.api.hub import Hub
from saia_engine.edge.logs import get_logger
from saia_engine.record.notes import NoteTaker
from saia_engine.record.writer import Limits, Sample, Writer
from saia_engine.view import TABLES

HANG_S = 30.0
RETRY_S = 60.0
_NOTED = ("alarms", "events", "instances")

log = get_logger("record")


class Recorder:
    """`now` is the engine's clock. One at a time for a directory."""

    def __init__(self, hub: Hub, directory: Path, limits: Limits, now: Callable[[], float]) -> None:
        self.fault = ""
        """Why nothing is recorded now; empty while all is well."""
        self._hub = hub
        self._limits = limits
        self._now = now
        self._notes = NoteTaker()
        self._writer = Writer(directory, limits)

    async def run(self) -> None:
        """Until cancelled; whatever goes wrong with the disk never ends it."""
        thread = ThreadPoolExecutor(1, "record")
        pause_s = 0.0
        try:
            while True:
                await asyncio.sleep(self._limits.step_s + pause_s)
                pause_s = 0.0 if await self._record(thread) else RETRY_S
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    async def _record(self, thread: ThreadPoolExecutor) -> bool:
        """One sample more; False where it could not be kept."""
        writing = asyncio.get_running_loop().run_in_executor(thread, self._writer.write, self.sample())
        try:
            while not (await asyncio.wait([writing], timeout=HANG_S))[0]:
                self._tell(f"the disk has not answered for {HANG_S:.0f} s or more")
            writing.result()
        except OSError as exc:
            self._tell(f"{exc.filename or self._writer.directory}: {exc.strerror or exc}")
        except Exception as exc:
            log.error("record_failed", exc_info=exc)
            self._tell(f"{type(exc).__name__}: {exc}")
        else:
            if self.fault:
                log.info("record_goes_on")
                self.fault = ""
        return not self.fault

    def _tell(self, why: str) -> None:
        if why != self.fault:
            log.warning("record_not_written", reason=why)
        self.fault = why

    def sample(self) -> Sample:
        """What is to be written now: the rows of one moment."""
        hub, now = self._hub, self._now()
        touched = hub.touched()
        notes = self._notes.take({name: hub.rows(name) for name in _NOTED}, touched)
        whole = self._writer.wants_whole(now)
        tables = {}
        for name in TABLES:
            rows = hub.encoded(name)
            tables[name] = (
                (dict(rows), [])
                if whole
                else (
                    {key: rows[key] for key in touched[name] if key in rows},
                    [key for key in touched[name] if key not in rows],
                )
            )
        return Sample(now, notes, tables, whole)
