"""The demo: a whole small site on this machine, made by the engine's package."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import click


class DemoHandle(Protocol):
    """What `saia_engine.demo.run.start` returns."""

    @property
    def socket(self) -> Path: ...

    def stop(self) -> int: ...


@contextmanager
def demo(*, drill: bool) -> Iterator[Path]:
    """Runs a demo in a directory of its own, and yields its operator.sock. At the end nothing is left.

    With a `drill` things go wrong in it.

    Raises click.ClickException, which says what could not be started.
    """
    # By name: the screen needs nothing else of the engine's, and no other command of it loads this.
    run = importlib.import_module("saia_engine.demo.run")
    with ExitStack() as undo:
        try:
            place = run.Place()
            undo.callback(place.remove)
            handle: DemoHandle = run.start(place.directory, drill=drill)
        except (run.DemoFailed, OSError) as exc:
            raise click.ClickException(str(exc)) from exc
        undo.callback(handle.stop)
        yield handle.socket
