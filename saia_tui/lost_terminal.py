"""The end of the program with its terminal, also where nobody sends the signal that tells of it.

The kernel tells the session's leader alone, and a leader that waits for us, as `make` does in `ssh -t HOST make demo`,
keeps it to itself.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal

LOOK_S = 1.0


def hung_up(descriptor: int) -> bool:
    """Whether the terminal behind it is gone."""
    looked = select.poll()
    looked.register(descriptor, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in looked.poll(0))


async def end_with(descriptor: int) -> None:
    """As if SIGHUP had come, once the terminal is gone. A descriptor that is no terminal is not watched."""
    if not os.isatty(descriptor):
        return
    while not hung_up(descriptor):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(LOOK_S)
    signal.raise_signal(signal.SIGHUP)
