"""What the record of the state costs: bytes an hour, the event loop's share of a sample, and a seek.

    python -m bench.record [--jobs 10000] [--minutes 20] [--socket operator.sock [--seconds 120]]

With `--jobs` the cluster's jobs change, 1 % of them a second. With `--socket` the stream of a running engine (a demo)
is recorded here as that engine would, and sized up. Times are of the wall clock, medians and the longest.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from saia_engine.api.hub import Hub
from saia_engine.client import EngineClient, Tables
from saia_engine.record.index import Indexer
from saia_engine.record.recorder import Recorder
from saia_engine.record.writer import Limits
from saia_engine.view import TABLES, JobView
from saia_tui.feed import Feed
from saia_tui.replay.player import Player
from saia_tui.replay.source import Record

STEP_S = 10.0
CHANGED_A_SECOND = 0.01
REASONS = ("Priority", "Resources", "Dependency", "QOSMaxJobsPerUserLimit", "ReqNodeNotAvail")


class Recorded:
    """A record that is made as fast as it goes."""

    def __init__(self, directory: Path, step_s: float) -> None:
        self.hub, self.now = Hub(), 1_795_000_000.0
        self.limits = Limits(step_s)
        self._recorder = Recorder(self.hub, directory, self.limits, lambda: self.now)
        self.loop_s: list[float] = []
        self.thread_s: list[float] = []

    def sample(self) -> None:
        began = time.perf_counter()
        sample = self._recorder.sample()
        self.loop_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        self._recorder._writer.write(sample)
        self.thread_s.append(time.perf_counter() - began)


def of_jobs(directory: Path, count: int, minutes: float) -> Recorded:
    dice = random.Random(1)
    jobs = {
        str(number): JobView(
            number, f"train-{dice.randrange(10**6):06}", f"user{number % 97:02}",
            "RUNNING" if number % 2 else "PENDING",
            "gpu", "" if number % 2 else dice.choice(REASONS), f"gpu{number % 500:04}" if number % 2 else "",
            "gpu:a100:2", 2, 1_794_900_000.0 + number, 1_794_950_000.0 + number, 1_795_040_000.0 + number, 86_400.0,
        )
        for number in range(count)
    }  # fmt: skip
    recorded = Recorded(directory, STEP_S)
    for _ in range(round(minutes * 60)):
        recorded.now += 1.0
        for key in dice.sample(list(jobs), round(count * CHANGED_A_SECOND)):
            jobs[key] = replace(
                jobs[key], reason=dice.choice(REASONS), end_time=1_795_040_000.0 + dice.randrange(10**5)
            )
        recorded.hub.publish("jobs", jobs)
        if round(recorded.now) % STEP_S == 0:
            recorded.sample()
    return recorded


async def of_engine(directory: Path, socket: Path, seconds: float) -> Recorded:
    recorded, tables = Recorded(directory, STEP_S), Tables()
    async with EngineClient(socket) as client:
        loop = asyncio.get_running_loop()
        began, due = loop.time(), loop.time() + STEP_S
        async for change in client.changes():
            tables.apply(change)
            if loop.time() < due:
                continue
            due += STEP_S
            recorded.now += STEP_S
            for name in TABLES:
                rows = getattr(tables, name)
                recorded.hub.publish(name, ({"engine": rows} if rows else {}) if name == "engine" else rows)
            recorded.sample()
            if loop.time() - began > seconds:
                break
    return recorded


async def seeks(directory: Path, count: int = 20) -> tuple[list[float], list[float]]:
    """Seconds of seeks across the record, and of steps to the next frame, until the tables hold the rows."""
    feed = Feed(None)  # type: ignore[arg-type]
    player = Player(Record(None, directory), feed.show_then, print)
    await player.open(None)
    begin, end = player.index.begin or 0.0, player.index.end or 0.0
    far, near = [], []
    for number in range(count):
        target = begin + (end - begin) * (0.05 if number % 2 else 0.95)
        began = time.perf_counter()
        await player._seek(target)
        far.append(time.perf_counter() - began)
        began = time.perf_counter()
        await player._seek(player._after(target))
        near.append(time.perf_counter() - began)
    return far, near


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.record", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--minutes", type=float, default=30.0, help="of the record")
    options.add_argument("--socket", type=Path, help="of a running engine, instead of --jobs")
    options.add_argument("--seconds", type=float, default=120.0, help="to watch that engine")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="saia-record-") as name:
        directory = Path(name) / "record"
        if asked.socket:
            recorded = asyncio.run(of_engine(directory, asked.socket, asked.seconds))
        else:
            recorded = of_jobs(directory, asked.jobs, asked.minutes)
        index = Indexer(directory).index()
        size, lasts = (
            sum(span.size for span in index.spans),
            (index.end or 0.0) - (index.begin or 0.0) + STEP_S,
        )
        print(
            f"{size / lasts * 3600 / 1e6:.2f} MB an hour ({size} bytes in {lasts:.0f} s, {len(index.spans)} segments)"
        )
        far, near = asyncio.run(seeks(directory))
        for what, times in (
            ("loop, a sample", recorded.loop_s), ("thread, a sample", recorded.thread_s),
            ("seek", far), ("next frame", near),
        ):  # fmt: skip
            print(
                f"{what:18} median {statistics.median(times) * 1000:7.1f} ms, longest {max(times) * 1000:7.1f} ms"
            )


if __name__ == "__main__":
    main()
