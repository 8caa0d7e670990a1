"""The load, in a process of its own: many clients on one loop, each answer checked. One job on stdin, JSON on stdout.

Clients first ask once each without being counted, so that all connections stand. Then each asks again as soon as it
has its answer. Streams begin one after another, and are counted once all of them should run.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from time import perf_counter
from typing import TypeVar

import uvloop

from bench import exchange
from bench.answers import Events, Whole
from bench.exec_client import Command
from bench.figures import percentile
from bench.http_client import Answer, Client, request
from bench.job import DOWNLOADS, REQUESTS, STREAMS, UPLOADS, Load, Outcome, Target, from_json

SETTLE_S = 0.3
"""After the last stream began."""
PATIENCE_S = 15.0
"""For answers that are late, after which they count as unfinished."""
PAUSE_S = 0.05
"""After a fault, so that a path that refuses is not stormed."""

AnyClient = Client | Command
T = TypeVar("T")


def _clients(load: Load, target: Target) -> list[AnyClient]:
    if target.command:
        return [Command(target.command) for _ in range(load.clients)]
    return [Client(target) for _ in range(load.clients)]


def _request(target: Target, path: str, body: bytes) -> bytes:
    return body if target.command else request(target, path, body)


def _asked(load: Load, target: Target) -> tuple[bytes, Callable[[], Answer]]:
    """The request of a closed loop, and what judges its answer."""
    path, body, expected = {
        REQUESTS: lambda: (exchange.CHAT, exchange.question(), exchange.ANSWER),
        UPLOADS: lambda: (exchange.UPLOAD, exchange.upload(load.size), exchange.receipt(load.size)),
        DOWNLOADS: lambda: (
            f"{exchange.DOWNLOAD}{load.size}",
            exchange.question(),
            exchange.download(load.size),
        ),
    }[load.kind]()
    return _request(target, path, body), lambda: Whole(expected, target.exact)


async def closed_loop(load: Load, target: Target) -> Outcome:
    outcome = Outcome()
    clients = _clients(load, target)
    hello = _request(target, exchange.CHAT, exchange.question())
    asked, judge = _asked(load, target)

    async def greet(client: AnyClient) -> None:
        fault = await client.ask(hello, Whole(exchange.ANSWER, target.exact))
        outcome.in_all += not fault
        if fault:
            _note(outcome, f"at first: {fault}")

    async def go_on(client: AnyClient) -> list[float]:
        latencies: list[float] = []
        while perf_counter() < deadline:
            if fault := await client.ask(asked, judge()):
                _note(outcome, fault)
                await asyncio.sleep(PAUSE_S)
            else:
                latencies.append(client.ended_at - client.began_at)
        return latencies

    await _all(outcome, PATIENCE_S, [greet(client) for client in clients])
    began = perf_counter()
    deadline = began + load.seconds
    found = await _all(outcome, load.seconds + PATIENCE_S, [go_on(client) for client in clients])
    outcome.seconds = perf_counter() - began
    latencies = [latency for each in found for latency in each]
    outcome.answered = len(latencies)
    outcome.in_all += len(latencies)
    outcome.timed = {"p50_s": percentile(latencies, 0.5), "p99_s": percentile(latencies, 0.99)}
    for client in clients:
        client.close()
    return outcome


async def streams(load: Load, target: Target) -> Outcome:
    outcome = Outcome()
    clients = _clients(load, target)
    await _all(outcome, PATIENCE_S, [client.connect() for client in clients])
    ramp_s = load.clients / load.opens_per_s
    lasts_s = ramp_s + SETTLE_S + load.seconds
    tokens = round(lasts_s * load.rate)
    asked = _request(target, exchange.CHAT, exchange.question(tokens, load.rate))
    began = perf_counter()

    async def follow(client: AnyClient, number: int) -> tuple[float, Events] | None:
        await asyncio.sleep(number / load.opens_per_s)
        events = Events(tokens)
        fault = await client.ask(asked, events)
        client.close()
        if fault:
            _note(outcome, fault)
            return None
        return client.began_at, events

    asking = [follow(client, number) for number, client in enumerate(clients)]
    followed = [found for found in await _all(outcome, lasts_s + PATIENCE_S, asking) if found is not None]
    first = began + ramp_s + SETTLE_S
    outcome.seconds = load.seconds
    outcome.answered = outcome.in_all = len(followed)
    outcome.tokens = sum(events.tokens for _, events in followed)
    outcome.timed = _stream_times(load, followed, first, first + load.seconds)
    return outcome


def _stream_times(
    load: Load, followed: list[tuple[float, Events]], begin: float, end: float
) -> dict[str, float]:
    """Between `begin` and `end`, when all streams should run; tokens that came together have no time between them."""
    firsts = [events.came[0][0] - asked_at for asked_at, events in followed]
    gaps: list[float] = []
    counted = 0
    for _, events in followed:
        before = 0.0
        for at, count in events.came:
            if begin <= at < end:
                counted += count
                gaps += [at - before] * bool(before) + [0.0] * (count - 1)
            before = at
    return {
        # Who was late before, and now sends what he held back, does not deliver more than was made.
        "tokens_per_s": min(counted / (end - begin), load.clients * load.rate),
        "first_p50_s": percentile(firsts, 0.5),
        "first_p99_s": percentile(firsts, 0.99),
        "gap_p99_s": percentile(gaps, 0.99),
    }


async def _all(outcome: Outcome, patience_s: float, asking: Sequence[Awaitable[T]]) -> list[T]:
    """The results of those that end in time; what does not is an error, and is given up."""
    tasks = [asyncio.ensure_future(each) for each in asking]
    done, late = await asyncio.wait(tasks, timeout=patience_s)
    for task in late:
        task.cancel()
        _note(outcome, "unfinished")
    found: list[T] = []
    for task in done:
        try:
            found.append(task.result())
        except (OSError, TimeoutError):
            _note(outcome, "no connection")
    return found


def _note(outcome: Outcome, fault: str) -> None:
    outcome.errors[fault] = outcome.errors.get(fault, 0) + 1


async def measured(load: Load, target: Target) -> Outcome:
    before = _cpu_s()
    outcome = await (streams if load.kind == STREAMS else closed_loop)(load, target)
    outcome.cpu_s = _cpu_s() - before
    return outcome


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    load, target = from_json(json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(measured(load, target)))))


if __name__ == "__main__":
    main()
