"""Runs one command to its end: no shell, a given environment, a deadline, bounded output."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024


class NotStarted(Exception):
    """The command never ran, so it had no effect."""


class NotFinished(Exception):
    """The command was killed before its end; it may have had its effect."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended and what it printed; bytes that are not UTF-8 appear as `\\xNN`."""

    code: int
    stdout: str
    stderr: str


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    limit_bytes: int = OUTPUT_LIMIT_BYTES,
) -> Finished:
    """Run `argv` in a process group of its own, which does not outlive the call.

    Raises NotStarted, or NotFinished when it takes longer than `timeout_s` or prints more than `limit_bytes`.
    """
    name = Path(argv[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
    except (OSError, ValueError) as exc:
        raise NotStarted(f"{name} cannot be started: {exc}") from exc

    def kill() -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr, code = await asyncio.gather(
                _collect(process.stdout, limit_bytes, kill),
                _collect(process.stderr, limit_bytes, kill),
                process.wait(),
            )
    except TimeoutError:
        raise NotFinished(f"{name} did not answer within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            kill()
            await process.communicate()
    if max(len(stdout), len(stderr)) > limit_bytes:
        raise NotFinished(f"{name} printed more than {limit_bytes} bytes")
    return Finished(code, _text(stdout), _text(stderr))


async def _collect(stream: asyncio.StreamReader, limit_bytes: int, too_much: Callable[[], None]) -> bytes:
    """All of the stream; above the limit `too_much` is called and the rest is dropped."""
    data = bytearray()
    while chunk := await stream.read(65536):
        if len(data) <= limit_bytes:
            data += chunk
        else:
            too_much()
    return bytes(data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
