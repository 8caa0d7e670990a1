"""Light traffic through a proxy, each token of it checked; clients that never retry.

    python -m saia_engine.demo.traffic --base-url URL --key-file FILE --models a,b [--streams 10] [--short-rate 5]
                                       [--token-rate 10] [--stream-seconds 10,20] [--wait] [--seconds N]
                                       [--report FILE | -]

Keeps `--streams` streams of 10 to 20 s open at all times and sends `--short-rate` short requests a second, in slow
waves, on keep-alive connections. With `--wait` it begins once each model has a ready instance. It expects the numbered
tokens of `saia_engine.demo.llm`. It ends on SIGTERM, SIGINT, after `--seconds`, or at the end of the pipe
$SAIA_LIFELINE_FD, without waiting for what is open.

The report is one JSON object, each second and at the end: as a line on stdout for `-`, otherwise in FILE, which is
replaced atomically. Times are seconds since the epoch.

    requests         all that were sent, streams and short ones
    failed           those without a whole and right answer, dropped streams among them; not those cut by us
    dropped_streams  streams that had begun and did not come to their last token and [DONE]
    cut_by_us        open when the traffic ended
    open             streams with an answer now: [{"instance", "since"}], since = when the request was sent
    served_by        {instance: requests it answered}
    max_gap_ms       longest wait between two tokens of one stream
    finished         the last 1,000 streams: [{"instance", "started_at", "ended_at", "ok", "cut_by_us", "max_gap_ms"}]
    faults           the last 50: [{"at", "kind", "instance", "fault"}]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx

from saia_engine.edge import lifeline
from saia_engine.edge.files import write_atomically
from saia_engine.edge.text import clean

STREAM_SECONDS = (10.0, 20.0)
SHORT_TOKENS = 4
SHORT_TOKEN_RATE = 1000.0
MAX_SHORT_OPEN = 50
"""More would only pile up before a proxy that hangs."""
AFTER_FAILURE_S = 0.2
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
KEEP_ALIVE_S = 2.0
"""Below the 5 s of common servers, so that no request meets a connection that just closed."""
REPORT_EVERY_S = 1.0
LOOK_AGAIN_S = 0.2
WAVE_S = 40.0
WAVE_HEIGHT = 0.6
"""How far the rate of short requests swings to either side, as a part of it."""
INSTANCE_HEADER = "x-saia-instance"


# ---------------------------------------------------------------- accounting


class Broken(Exception):
    """An answer is not what was asked for; the text says how."""


@dataclass(eq=False, slots=True)
class Exchange:
    """One request and what has come of it so far."""

    kind: str
    """`stream` or `short`."""
    tokens: int
    started_at: float
    instance: str | None = None
    """None until its answer began."""
    received: int = 0
    done: bool = False
    max_gap_s: float = 0.0
    _ident: str = ""
    _last: float = 0.0

    def line(self, line: str, now: float) -> None:
        """One line of an event stream, at `now` on any steady clock. Raises Broken."""
        if not line.startswith("data:"):
            return
        data = line.removeprefix("data:").strip()
        if self.done:
            raise Broken("data after [DONE]")
        if data == "[DONE]":
            self.done = True
            return
        text, ident = _token(data)
        self.received += 1
        if text != f" {self.received}":
            raise Broken(f"token {self.received} of {self.tokens} is {text!r}")
        if self.received == 1:
            self._ident = ident
        else:
            self.max_gap_s = max(self.max_gap_s, now - self._last)
        if ident != self._ident:
            raise Broken(f"token {self.received} is of another answer, {ident!r}")
        self._last = now

    def whole(self) -> None:
        """At the end of the stream. Raises Broken."""
        if self.received != self.tokens:
            raise Broken(f"ended after {self.received} of {self.tokens} tokens")
        if not self.done:
            raise Broken("ended without [DONE]")

    def answer(self, body: bytes) -> None:
        """The whole answer of a short request. Raises Broken."""
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Broken(f"not an answer: {body[:200]!r}") from None
        if text != "".join(f" {i}" for i in range(1, self.tokens + 1)):
            raise Broken(f"answer is {text!r}")


def _token(data: str) -> tuple[str, str]:
    """(text, answer's id) of one event."""
    try:
        event = json.loads(data)
        return event["choices"][0]["delta"]["content"], event["id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Broken(f"not a token: {data[:200]!r}") from None


@dataclass(slots=True)
class Tally:
    """What all requests came to. Nothing here waits, reads a clock or touches the network."""

    requests: int = 0
    failed: int = 0
    dropped_streams: int = 0
    cut_by_us: int = 0
    max_gap_s: float = 0.0
    served_by: Counter[str] = field(default_factory=Counter)
    faults: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=50))
    finished: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))
    _open: dict[Exchange, None] = field(default_factory=dict)

    def begin(self, kind: str, tokens: int, now: float) -> Exchange:
        exchange = Exchange(kind, tokens, now)
        self._open[exchange] = None
        self.requests += 1
        return exchange

    def answered(self, exchange: Exchange, instance: str) -> None:
        """Its answer has begun, with status 200."""
        exchange.instance = instance
        self.served_by[instance] += 1

    def end(self, exchange: Exchange, fault: str, now: float) -> None:
        """`fault` is empty for a whole and right answer."""
        self._close(exchange, now, ok=not fault)
        if fault:
            self.failed += 1
            self.dropped_streams += exchange.kind == "stream" and exchange.instance is not None
            row = {"at": now, "kind": exchange.kind, "instance": exchange.instance or "", "fault": fault}
            self.faults.append(row)

    def cut(self, now: float) -> None:
        """The traffic ends: whatever is open was cut by us."""
        for exchange in list(self._open):
            self.cut_by_us += 1
            self._close(exchange, now, ok=False, cut_by_us=True)

    def _close(self, exchange: Exchange, now: float, *, ok: bool, cut_by_us: bool = False) -> None:
        del self._open[exchange]
        self.max_gap_s = max(self.max_gap_s, exchange.max_gap_s)
        if exchange.kind == "stream":
            self.finished.append(
                {
                    "instance": exchange.instance or "",
                    "started_at": exchange.started_at,
                    "ended_at": now,
                    "ok": ok,
                    "cut_by_us": cut_by_us,
                    "max_gap_ms": round(exchange.max_gap_s * 1000, 1),
                }
            )

    def report(self) -> dict[str, Any]:
        streams = [e for e in self._open if e.kind == "stream" and e.instance is not None]
        longest = max([self.max_gap_s, *(e.max_gap_s for e in streams)])
        return {
            "requests": self.requests,
            "failed": self.failed,
            "dropped_streams": self.dropped_streams,
            "cut_by_us": self.cut_by_us,
            "open": [{"instance": e.instance, "since": e.started_at} for e in streams],
            "served_by": dict(self.served_by),
            "max_gap_ms": round(longest * 1000, 1),
            "finished": list(self.finished),
            "faults": list(self.faults),
        }


# ---------------------------------------------------------------- the clients


@dataclass(frozen=True, slots=True)
class Settings:
    base_url: str
    key: str
    models: tuple[str, ...]
    streams: int = 10
    short_rate: float = 5.0
    """Short requests a second."""
    token_rate: float = 10.0
    """Tokens a second of each stream."""
    stream_seconds: tuple[float, float] = STREAM_SECONDS
    wait: bool = False
    """Begin once each model has a ready instance."""


class Traffic:
    def __init__(self, settings: Settings, tally: Tally, chance: random.Random) -> None:
        self._settings = settings
        self._tally = tally
        self._chance = chance
        self._models = itertools.cycle(settings.models)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then all that is open is cut."""
        settings = self._settings
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)
        client = httpx.AsyncClient(
            base_url=settings.base_url,
            headers={"authorization": f"Bearer {settings.key}"},
            timeout=TIMEOUT,
            limits=limits,
            trust_env=False,
        )
        async with client, asyncio.TaskGroup() as group:
            clients = group.create_task(self._clients(client))
            await stop.wait()
            clients.cancel()
        self._tally.cut(time.time())

    async def _clients(self, client: httpx.AsyncClient) -> None:
        if self._settings.wait:
            await self._until_served(client)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.streams):
                group.create_task(self._keep_streaming(client))
            if self._settings.short_rate > 0:
                group.create_task(self._keep_asking(client))

    async def _until_served(self, client: httpx.AsyncClient) -> None:
        """Until the proxy says that each model has a ready instance."""
        while True:
            try:
                rows = (await client.get("/v1/models")).json()["data"]
                if set(self._settings.models) <= {row["id"] for row in rows if row["saia"]["ready"]}:
                    return
            except (httpx.HTTPError, ValueError, LookupError, TypeError):
                pass  # not there yet
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _keep_streaming(self, client: httpx.AsyncClient) -> None:
        while True:
            seconds = self._chance.uniform(*self._settings.stream_seconds)
            rate = self._settings.token_rate
            exchange = self._tally.begin("stream", max(1, round(seconds * rate)), time.time())
            if not await self._settle(exchange, self._stream(client, exchange, rate)):
                await asyncio.sleep(AFTER_FAILURE_S)

    async def _keep_asking(self, client: httpx.AsyncClient) -> None:
        asking: set[asyncio.Task[bool]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                if len(asking) < MAX_SHORT_OPEN:
                    exchange = self._tally.begin("short", SHORT_TOKENS, time.time())
                    task = group.create_task(self._settle(exchange, self._ask(client, exchange)))
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                wave = 1 + WAVE_HEIGHT * math.sin(time.monotonic() * math.tau / WAVE_S)
                await asyncio.sleep(1 / (self._settings.short_rate * wave))

    async def _settle(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> bool:
        """Books how one request ends; one that is cancelled stays open in the books, to be cut."""
        fault = ""
        try:
            await work
        except Broken as exc:
            fault = clean(str(exc))
        except (httpx.HTTPError, httpx.StreamError) as exc:
            fault = clean(f"{type(exc).__name__}: {exc}")
        self._tally.end(exchange, fault, time.time())
        return not fault

    async def _stream(self, client: httpx.AsyncClient, exchange: Exchange, rate: float) -> None:
        body = self._body(exchange, rate, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            await self._head(exchange, response)
            async for line in response.aiter_lines():
                exchange.line(line, time.monotonic())
        exchange.whole()

    async def _ask(self, client: httpx.AsyncClient, exchange: Exchange) -> None:
        body = self._body(exchange, SHORT_TOKEN_RATE, stream=False)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            await self._head(exchange, response)
            exchange.answer(await response.aread())

    def _body(self, exchange: Exchange, rate: float, *, stream: bool) -> dict[str, Any]:
        return {
            "model": next(self._models),
            "messages": [{"role": "user", "content": f"count to {exchange.tokens}"}],
            "max_tokens": exchange.tokens,
            "tokens_per_second": rate,
            "stream": stream,
        }

    async def _head(self, exchange: Exchange, response: httpx.Response) -> None:
        if response.status_code != 200:
            raise Broken(f"status {response.status_code}: {(await response.aread())[:200]!r}")
        self._tally.answered(exchange, clean(response.headers.get(INSTANCE_HEADER, "")))


# ---------------------------------------------------------------- the program


Report = Callable[[dict[str, Any]], None]


async def run(settings: Settings, report: Report, seconds: float | None) -> None:
    """Traffic until something ends it; see the module's docstring. Raises OSError if it can't report."""
    tally = Tally()
    report(tally.report())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if seconds is not None:
        loop.call_later(seconds, stop.set)
    if (pipe := lifeline.inherited()) is not None:
        lifeline.follow(pipe, stop.set)
    async with asyncio.TaskGroup() as group:
        reporter = group.create_task(_report_each_second(tally, report, stop))
        await Traffic(settings, tally, random.Random()).run(stop)
        reporter.cancel()
    report(tally.report())


async def _report_each_second(tally: Tally, report: Report, stop: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        try:
            # In a thread: a slow disk must not look like a gap between tokens.
            await asyncio.to_thread(report, tally.report())
        except OSError:
            stop.set()  # the last report, at the end, will say why
            return


def _reporter(where: str) -> Report:
    if where == "-":
        return lambda document: print(json.dumps(document), flush=True)  # noqa: T201
    return lambda document: write_atomically(Path(where), json.dumps(document).encode(), mode=0o600)


def _read_key(path: str) -> str:
    try:
        key = Path(path).read_text(encoding="ascii").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as exc:
        _fail(f"cannot read the key: {exc}")
    return key or _fail(f"the first line of {path} is empty; it should be the API key")


def _read_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        _fail(f"--base-url {text!r}: {exc}")
    return (
        text if url.scheme in ("http", "https") and url.host else _fail(f"--base-url {text!r} is no http URL")
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="saia_engine.demo.traffic", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--base-url", required=True, metavar="URL", help="the proxy's, without /v1")
    parser.add_argument("--key-file", required=True, metavar="FILE", help="its first line is the API key")
    parser.add_argument("--models", required=True, metavar="A,B")
    parser.add_argument("--streams", type=int, default=10, metavar="N")
    parser.add_argument("--short-rate", type=float, default=5.0, metavar="R", help="short requests a second")
    parser.add_argument(
        "--token-rate", type=float, default=10.0, metavar="R", help="tokens a second of a stream"
    )
    parser.add_argument("--stream-seconds", type=_span, default=STREAM_SECONDS, metavar="A,B")
    parser.add_argument("--wait", action="store_true", help="begin once each model has a ready instance")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so long")
    parser.add_argument("--report", default="-", metavar="FILE", help="- for stdout")
    given = parser.parse_args(arguments)
    models = tuple(name for name in given.models.split(",") if name)
    if not models or given.streams < 0 or given.short_rate < 0 or given.token_rate <= 0:
        parser.error("at least one model, no negative numbers, and a token rate above 0")
    settings = Settings(
        base_url=_read_url(given.base_url),
        key=_read_key(given.key_file),
        models=models,
        streams=given.streams,
        short_rate=given.short_rate,
        token_rate=given.token_rate,
        stream_seconds=given.stream_seconds,
        wait=given.wait,
    )
    try:
        asyncio.run(run(settings, _reporter(given.report), given.seconds))
    except OSError as exc:
        _fail(f"cannot write the report: {exc}")


def _span(text: str) -> tuple[float, float]:
    """For argparse, which turns a ValueError into a usage message."""
    least, most = (float(part) for part in text.split(","))
    if not 0 < least <= most:
        raise ValueError
    return least, most


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"saia_engine.demo.traffic: {clean(text)}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
