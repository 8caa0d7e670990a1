"""Load from the official `openai` client, without retries: each stream is checked token by token.

It runs on a thread and loop of its own, so that a test can do other things meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

import openai

INSTANCE_HEADER = "x-saia-instance"
AFTER_FAILURE_S = 0.2


@dataclass(eq=False)
class Answer:
    """One request: what was asked, and what has come of it."""

    tokens: int
    sent_at: float
    instance: str = ""
    """Empty until its answer began."""
    began_at: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    fault: str = ""
    request_id: str = ""
    """Of one that was refused or lost, as the proxy tells it."""

    @property
    def whole(self) -> bool:
        return bool(self.ended_at) and not self.fault and len(self.arrivals) == self.tokens

    def fail(self, exc: Exception) -> None:
        self.fault = f"{type(exc).__name__}: {exc}"
        self.request_id = getattr(exc, "request_id", None) or ""

    def open_at(self, moment: float) -> bool:
        return (
            bool(self.began_at) and self.began_at <= moment and (not self.ended_at or moment < self.ended_at)
        )


class Traffic:
    """So many streams at all times, each of a random length, and short requests beside them. A context manager."""

    def __init__(
        self,
        url: str,
        key: str,
        model: str,
        *,
        streams: int = 8,
        seconds: tuple[float, float] = (8.0, 18.0),
        tokens_per_second: float = 10.0,
        short_per_second: float = 2.0,
    ) -> None:
        self.streamed: list[Answer] = []
        self.short: list[Answer] = []
        self._model = model
        self._streams = streams
        self._seconds = seconds
        self._rate = tokens_per_second
        self._short_per_second = short_per_second
        self._url = url
        self._key = key
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Begin nothing new, and wait until all that is open has ended."""
        self._stopping.set()
        self._thread.join(self._seconds[1] + 30)
        assert not self._thread.is_alive(), "answers do not end"

    # ------------------------------------------------------------ what came of it

    @property
    def faults(self) -> list[str]:
        return [
            f"{answer.fault or 'cut short'}: {len(answer.arrivals)} of {answer.tokens} from {answer.instance or '?'}"
            for answer in [*self.streamed, *self.short]
            if answer.ended_at and not answer.whole
        ]

    def open_on(self, instance: str, moment: float) -> list[Answer]:
        return [a for a in self.streamed if a.instance == instance and a.open_at(moment)]

    def fewest_open(self, since: float, until: float) -> int:
        """Streams with an answer, at the worst moment of the time span."""
        moments = {since, *(a.ended_at for a in self.streamed if since <= a.ended_at <= until)}
        return min(sum(a.open_at(moment) for a in self.streamed) for moment in moments)

    def longest_silence(self, since: float, until: float) -> float:
        """Seconds without a token of any stream."""
        arrivals = sorted(t for a in self.streamed for t in a.arrivals if since <= t <= until)
        return max(after - before for before, after in pairwise([since, *arrivals, until]))

    def longest_gap(self) -> float:
        """Seconds between two tokens of one stream."""
        return max(
            (after - before for a in self.streamed for before, after in pairwise(a.arrivals)), default=0.0
        )

    def served_by(self) -> set[str]:
        return {answer.instance for answer in [*self.streamed, *self.short] if answer.whole}

    # ------------------------------------------------------------ the clients

    async def _run(self) -> None:
        client = openai.AsyncOpenAI(base_url=self._url, api_key=self._key, max_retries=0, timeout=30)
        async with client, asyncio.TaskGroup() as group:
            for _ in range(self._streams):
                group.create_task(self._keep_streaming(client))
            group.create_task(self._keep_asking(client, group))

    async def _keep_streaming(self, client: openai.AsyncOpenAI) -> None:
        while not self._stopping.is_set():
            answer = Answer(round(random.uniform(*self._seconds) * self._rate), time.time())
            self.streamed.append(answer)
            try:
                await self._stream(client, answer)
            except Exception as exc:
                answer.fail(exc)
                await asyncio.sleep(AFTER_FAILURE_S)
            answer.ended_at = time.time()

    async def _stream(self, client: openai.AsyncOpenAI, answer: Answer) -> None:
        raw = await client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=[{"role": "user", "content": "count"}],
            stream=True,
            max_tokens=answer.tokens,
            extra_body={"tokens_per_second": self._rate},
        )
        answer.instance, answer.began_at = raw.headers[INSTANCE_HEADER], time.time()
        async for chunk in raw.parse():
            expected = f" {len(answer.arrivals) + 1}"
            text = chunk.choices[0].delta.content
            if text != expected:
                raise ValueError(f"token {expected} is {text!r}")
            answer.arrivals.append(time.time())

    async def _keep_asking(self, client: openai.AsyncOpenAI, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            group.create_task(self._ask(client))
            await asyncio.sleep(1 / self._short_per_second)

    async def _ask(self, client: openai.AsyncOpenAI) -> None:
        answer = Answer(3, time.time())
        self.short.append(answer)
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=[{"role": "user", "content": "count"}],
                max_tokens=answer.tokens,
                extra_body={"tokens_per_second": 1000},
            )
            answer.instance, answer.began_at = raw.headers[INSTANCE_HEADER], time.time()
            text = raw.parse().choices[0].message.content or ""
            if text != " 1 2 3":
                raise ValueError(f"the answer is {text!r}")
            answer.arrivals = [time.time()] * answer.tokens
        except Exception as exc:
            answer.fail(exc)
        answer.ended_at = time.time()
