"""Waiting for a file to change: by inotify where the kernel tells, and by the clock anyway.

On a network file system inotify says nothing of what other hosts write, so whoever waits looks again each second.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_MODIFY, _ATTRIB, _MOVE_SELF, _DELETE_SELF = 0x2, 0x4, 0x800, 0x400
_DONT_FOLLOW = 0x02000000
_MASK = _MODIFY | _ATTRIB | _MOVE_SELF | _DELETE_SELF | _DONT_FOLLOW
_EVENTS_BYTES = 4096


@contextmanager
def news_of(descriptor: int | None) -> Iterator[asyncio.Event]:
    """An event that is set when the watched file changes; never, where `descriptor` is None. See `watch`."""
    news, loop = asyncio.Event(), asyncio.get_running_loop()
    if descriptor is None:
        yield news
        return

    def heard() -> None:
        try:
            os.read(descriptor, _EVENTS_BYTES)
        except BlockingIOError:
            return
        except OSError:
            loop.remove_reader(descriptor)
        news.set()

    loop.add_reader(descriptor, heard)
    try:
        yield news
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def watch(path: Path) -> int | None:
    """An inotify descriptor of one file, to be closed; None where there can be none. May block on a file system."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(_NONBLOCK_CLOEXEC)
        add_watch = libc.inotify_add_watch
    except (OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    if add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(_MASK)) < 0:
        os.close(descriptor)
        return None
    return descriptor
