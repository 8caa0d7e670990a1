"""Logs: one event a line, with fields. JSON to a file or a pipe, `key=value` to a terminal.

    log = get_logger("reconciler")
    log.info("job submitted", instance=..., job=...)

Every value passes the sanitiser, so that nothing from outside can forge a line or reach a terminal.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
from structlog.typing import EventDict

from saia_engine.edge.text import clean, plain

LEVELS = ("debug", "info", "warning", "error")
LONGEST_VALUE = 8000
"""Room for a traceback."""

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes; then the file becomes FILE.1, FILE.1 becomes FILE.2, and so on."""
OLD_FILES = 4
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

_encoder = msgspec.json.Encoder(enc_hook=plain)


def set_up(level: str = "info", file: Path | None = None) -> None:
    """Say where logs go, once for the process: to `file` (appended, made 0640, rotated by size) or stderr.

    Raises OSError if the file can't be opened, ValueError for a level that is none of LEVELS.
    """
    if level not in LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(LEVELS)}")
    descriptor = 2 if file is None else os.open(file, _APPEND, 0o640)
    regular = file is not None and stat.S_ISREG(os.fstat(descriptor).st_mode)
    lines = _RotatedLines(descriptor, file) if file is not None and regular else _Lines(descriptor)
    render = _key_value if os.isatty(descriptor) else _json
    threshold = logging.getLevelNamesMapping()[level.upper()]
    global _output
    _output = _Output(lines, render, threshold <= logging.INFO)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _sanitise,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: lines,
    )


@contextmanager
def silenced() -> Iterator[None]:
    """No logs from this process meanwhile: what matters is told in another way."""
    global _output
    before, output = structlog.get_config(), _output
    structlog.configure(
        processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
    _output = None
    try:
        yield
    finally:
        structlog.configure(**before)
        _output = output


def get_logger(name: str) -> Any:
    """A logger whose events carry `part=name`. May be made before `set_up`."""
    return structlog.get_logger(part=name)


def info_lines(part: str, event: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes what `get_logger(part).info(event, **row)` would write for each row, at a fraction of its cost.

    For what is logged with each request: all at once, and with the same time.
    """
    if _output is None or not _output.tells_info:
        return
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    first = {"timestamp": now, "level": "info", "event": event, "part": part}
    lines = [
        _output.render(None, "info", first | {name: _safe(value) for name, value in row.items()})
        for row in rows
    ]
    if lines:
        _output.lines.msg(b"".join(lines))


class _Lines:
    """Writes whole lines. A full disk or a lost terminal must not stop who logs, so errors are dropped."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def msg(self, line: bytes) -> None:
        try:
            os.write(self._descriptor, line)
        except OSError:
            pass

    debug = info = warning = warn = error = critical = fatal = exception = failure = log = msg


class _RotatedLines(_Lines):
    """The same into a file of our processes alone, so that it can't fill the disk."""

    __slots__ = ("_file", "_size")

    def __init__(self, descriptor: int, file: Path) -> None:
        super().__init__(descriptor)
        self._file = file
        self._size = os.fstat(descriptor).st_size

    def msg(self, line: bytes) -> None:
        super().msg(line)
        self._size += len(line)
        if self._size >= LARGEST_FILE:
            self._size = 0
            try:
                self._rotate()
            except OSError:
                pass  # the old file goes on

    debug = info = warning = warn = error = critical = fatal = exception = failure = log = msg

    def _rotate(self) -> None:
        if os.path.samestat(self._file.stat(), os.fstat(self._descriptor)):
            self._put_aside()  # else another of our processes has done so
        fresh = os.open(self._file, _APPEND, 0o640)
        os.dup2(fresh, self._descriptor, inheritable=False)
        self._size = os.fstat(fresh).st_size
        os.close(fresh)

    def _put_aside(self) -> None:
        def old(number: int) -> Path:
            return self._file.with_name(f"{self._file.name}.{number}")

        for number in range(OLD_FILES - 1, 0, -1):
            if old(number).exists():
                old(number).replace(old(number + 1))
        self._file.replace(old(1))


class _Output(NamedTuple):
    """Where this process's logs go, and in which form."""

    lines: _Lines
    render: Callable[[object, str, EventDict], bytes]
    tells_info: bool


_output: _Output | None = None


def _drop(_logger: object, _method: str, _event: EventDict) -> EventDict:
    raise structlog.DropEvent


def _sanitise(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {clean(str(key), 100): _safe(value) for key, value in event.items()}


def _safe(value: object) -> object:
    if isinstance(value, str):
        return clean(value, LONGEST_VALUE)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else "a number of more than 64 bits"
    if isinstance(value, dict):
        return {plain(key, 100): _safe(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe(inner) for inner in value]
    return plain(value, LONGEST_VALUE)


def _json(_logger: object, _method: str, event: EventDict) -> bytes:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return _encoder.encode(first | dict(event)) + b"\n"


def _key_value(_logger: object, _method: str, event: EventDict) -> bytes:
    words = [str(event.pop(key, "")) for key in ("timestamp", "level", "event")]
    words += [f"{key}={_quoted(value)}" for key, value in event.items()]
    return (" ".join(words) + "\n").encode("utf-8", "backslashreplace")


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else _encoder.encode(value).decode()
    return text if text and " " not in text and '"' not in text else _encoder.encode(text).decode()
