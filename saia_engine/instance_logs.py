"""What an instance printed, read piece by piece for operators, who may not open its files themselves.

No path comes from outside: the files are an instance's `output.log` and what a rotation made of it. The job can
write in its directory, so nothing here follows a link or waits for a pipe, and a file system that hangs holds up
only the few threads that read logs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from saia_engine.edge.text import plain
from saia_engine.file_news import news_of, watch
from saia_engine.store import Event
from saia_engine.view import LogPiece

Stream = Literal["output", "events"]

MOST_BYTES = 1 << 20
LONGEST_WAIT_S = 25.0
LOOK_EACH_S = 1.0
"""While somebody waits; inotify tells sooner, but of local files only."""
LOOK_APART_S = 0.1
"""A file that grows all the time is read no more often."""
ANSWER_S = 10.0
"""A file system that takes longer is told of as an error."""
READERS = 4

OUTPUT = "output.log"
ROTATED = "output.log.1"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Found = TypeVar("Found")


class LogFault(Exception):
    """The log can't be read; the message says why."""


@dataclass(frozen=True, slots=True)
class LogQuestion:
    """A piece of one stream. A negative `offset` counts from the end."""

    stream: Stream = "output"
    offset: int = 0
    most: int = MOST_BYTES
    file: str = ""
    """Identity of the file that was read before; where it was rotated away, the rest of it comes first, then the
    new one from its beginning."""
    wait_s: float = 0.0
    """So long the answer may wait for a first new byte."""


class InstanceLogs:
    """Reads below `root`, the directory of the instances."""

    def __init__(self, root: Path, story: Callable[[str], Sequence[Event]]) -> None:
        self._root = root
        self._story = story
        self._threads = ThreadPoolExecutor(READERS, "instance-log")

    async def read(self, instance: str, asked: LogQuestion) -> LogPiece:
        """Raises LogFault, and JournalError for `events`. The caller has checked that the instance is known."""
        until = asyncio.get_running_loop().time() + asked.wait_s
        piece = await self._look(instance, asked)
        if piece.data or not asked.wait_s or _is_news(piece, asked):
            return piece
        descriptor = await self._in_thread(watch, self._root / instance / OUTPUT) if _of_file(asked) else None
        with news_of(descriptor) as news:
            return await self._wait(instance, asked, news, until)

    async def _wait(self, instance: str, asked: LogQuestion, news: asyncio.Event, until: float) -> LogPiece:
        loop = asyncio.get_running_loop()
        while True:
            await _first_of(news, min(LOOK_EACH_S, max(0.0, until - loop.time())))
            piece = await self._look(instance, asked)
            if piece.data or _is_news(piece, asked) or loop.time() >= until:
                return piece
            await asyncio.sleep(LOOK_APART_S)

    async def _look(self, instance: str, asked: LogQuestion) -> LogPiece:
        if _of_file(asked):
            return await self._in_thread(_read, self._root, instance, asked)
        return _cut(event_lines(self._story(instance)), asked)

    async def _in_thread(self, act: Callable[..., Found], *values: object) -> Found:
        task = asyncio.get_running_loop().run_in_executor(self._threads, act, *values)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await task
        except TimeoutError:
            raise LogFault(f"the file system has not answered for {ANSWER_S:.0f} s") from None
        except FileNotFoundError:
            raise LogFault(
                "there is no output (any more): its job has printed nothing, or is forgotten"
            ) from None
        except OSError as exc:
            raise LogFault(f"its output can't be read: {exc.strerror or exc}") from exc


def _of_file(asked: LogQuestion) -> bool:
    return asked.stream == "output"


def _is_news(piece: LogPiece, asked: LogQuestion) -> bool:
    """Another file, or one that became shorter: worth to tell at once."""
    return bool(asked.file) and (piece.file != asked.file or piece.size < asked.offset)


async def _first_of(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        pass
    news.clear()


# ---------------------------------------------------------------- files, in a thread


def _read(root: Path, instance: str, asked: LogQuestion) -> LogPiece:
    directory = os.open(root / instance, _DIRECTORY)
    try:
        if asked.file and (rest := _rest_of_rotated(directory, asked)):
            return rest
        with _opened(OUTPUT, directory) as (file, found):
            return _piece(file, found, asked)
    finally:
        os.close(directory)


def _rest_of_rotated(directory: int, asked: LogQuestion) -> LogPiece | None:
    """What of the file that was read before came in after that, if it was moved aside meanwhile."""
    try:
        with _opened(ROTATED, directory) as (file, found):
            is_it = _identity(found) == asked.file and 0 <= asked.offset < found.st_size
            return _piece(file, found, asked) if is_it else None
    except OSError:
        return None


@contextmanager
def _opened(name: str, directory: int) -> Iterator[tuple[int, os.stat_result]]:
    descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        yield descriptor, found
    finally:
        os.close(descriptor)


def _identity(found: os.stat_result) -> str:
    return f"{found.st_dev:x}-{found.st_ino:x}"


def _piece(file: int, found: os.stat_result, asked: LogQuestion) -> LogPiece:
    another = asked.file not in ("", _identity(found))
    start = 0 if another else _start(asked, found.st_size)
    data = os.pread(file, min(asked.most, MOST_BYTES), start) if start < found.st_size else b""
    # It may have grown since it was looked at.
    size = max(found.st_size, start + len(data)) if data else found.st_size
    return LogPiece(data, start, size, _identity(found), found.st_mtime)


def _start(asked: LogQuestion, size: int) -> int:
    return asked.offset if asked.offset >= 0 else max(0, size + asked.offset)


# ---------------------------------------------------------------- events, as if they were a file


def event_lines(events: Sequence[Event]) -> bytes:
    """One line an event, the oldest first, times in UTC; made so that a line never changes once it is there."""
    lines = []
    for event in events:
        moment = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        who = "" if event.uid is None else f" (uid {event.uid})"
        rule = event.detail.get("rule")
        why = f" [{plain(rule)}]" if rule else ""
        lines.append(f"{moment} {event.severity:8} {event.code}: {plain(event.text)}{who}{why}\n")
    return "".join(lines).encode("utf-8", "backslashreplace")


def _cut(text: bytes, asked: LogQuestion) -> LogPiece:
    start = _start(asked, len(text))
    return LogPiece(text[start : start + min(asked.most, MOST_BYTES)], start, len(text), "events", None)
