"""The demo's lifeline: a pipe whose one write end is held by the process that the user started.

Whoever finds its read end in $SAIA_LIFELINE_FD ends when the pipe does, so that a `kill -9` leaves nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

VARIABLE = "SAIA_LIFELINE_FD"


def inherited() -> int | None:
    """The read end's descriptor, if this process was given one. Raises ValueError for one that is none."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    descriptor = int(text)
    try:
        os.fstat(descriptor)
    except OSError:
        raise ValueError(f"{VARIABLE}={descriptor} is not an open file descriptor") from None
    return descriptor


def follow(descriptor: int, ended: Callable[[], None]) -> None:
    """Call `ended` once, on the running loop, when the pipe's last writer is gone."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        try:
            if os.read(descriptor, 4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        loop.remove_reader(descriptor)
        ended()

    loop.add_reader(descriptor, readable)
