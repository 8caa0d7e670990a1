"""The demo: a whole small site on this machine, made by the engine's package."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class DemoHandle(Protocol):
    """What `saia_engine.demo.run.start` returns."""

    socket: Path

    def stop(self) -> None: ...


@contextmanager
def demo() -> Iterator[Path]:
    """Runs a demo in a directory of its own, and yields its operator.sock. At the end nothing is left."""
    start = importlib.import_module("saia_engine.demo.run").start
    with tempfile.TemporaryDirectory(
        prefix="saia-demo-", dir="/tmp", ignore_cleanup_errors=True
    ) as directory:
        handle: DemoHandle = start(Path(directory))
        try:
            yield Path(handle.socket)
        finally:
            handle.stop()
