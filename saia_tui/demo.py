"""The demo: a whole small site on this machine, made by the engine's package."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click


class DemoHandle(Protocol):
    """What `saia_engine.demo.run.start` returns."""

    @property
    def socket(self) -> Path: ...

    def stop(self) -> int: ...


@contextmanager
def demo() -> Iterator[Path]:
    """Runs a demo in a directory of its own, and yields its operator.sock. At the end nothing is left.

    Raises click.ClickException, which says what could not be started.
    """
    # By name: the screen needs nothing else of the engine's, and no other command of it loads this.
    run = importlib.import_module("saia_engine.demo.run")
    with tempfile.TemporaryDirectory(
        prefix="saia-demo-", dir="/tmp", ignore_cleanup_errors=True
    ) as directory:
        try:
            handle: DemoHandle = run.start(Path(directory))
        except (run.DemoFailed, OSError) as exc:
            raise click.ClickException(str(exc)) from exc
        try:
            yield handle.socket
        finally:
            handle.stop()
