"""One process for each request: the body goes to its stdin, the answer comes from its stdout."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from time import perf_counter

from bench.http_client import Answer

READ_SIZE = 65536


class Command:
    """Takes a body where the HTTP client takes a whole request."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self.began_at = self.ended_at = 0.0

    async def connect(self) -> None:
        """There is nothing to connect before a request."""

    async def ask(self, request: bytes, answer: Answer) -> str:
        """What was wrong, or ""."""
        self.began_at = perf_counter()
        process = await asyncio.create_subprocess_exec(*self._argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.close()
            while data := await process.stdout.read(READ_SIZE):
                answer.take(data)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        self.ended_at = perf_counter()
        return answer.fault() if code == 0 else f"exit code {code}"

    def close(self) -> None:
        """Each request closes its own."""
