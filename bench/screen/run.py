"""What the screen costs with long lists, from squeue's rows through the real engine to a terminal of 200x60.

    python -m bench.screen.run [--jobs 10000 50000] [--seconds 20] [--unread 30] [--json FILE]

Fill: until the terminal shows the first screenful of rows, each on its line, the worst of three times; from the first
bytes of jobs at the screen's process (`first fill`), from the key (`opened`), or from the program's start (`started`).
Lag: the longest turn of the event loop, for so long a key may have to wait. CPU: of one core. Bytes: what was written
to the terminal. Late: by how much the longest time from one poll of Slurm to the next is above the interval.
Recovered: from the first byte that is read again until the terminal shows the rows as they are then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import machine, processes
from bench.screen.jobs import Queue
from bench.screen.picture import Picture
from bench.screen.site import POLL_S, Site
from bench.screen.terminal import COLUMNS, LINES, Terminal
from saia_tui.kept import Kept

RESULTS = Path(__file__).parents[1] / "results-screen.json"
SCREENFUL = LINES - 5
"""Rows of jobs that surely have room."""
FILLS = 3
WITHIN_S = 60.0
STEPS_A_S = 1
SETTLE_S = 3.0
LATE_S = 0.5
KB = 1000

TARGETS: dict[str, dict[str, float]] = {
    "first fill": {"fill_ms": 100},
    "opened": {"fill_ms": 100},
    "10 % changed": {"lag_ms": 50, "cpu_percent": 6, "kb_per_s": 12},
    "1 % changed": {"kb_per_s": 2},
    "nothing visible changed": {"kb_per_s": 0},
    "idle": {"cpu_percent": 1, "kb_per_s": 0},
    "not read": {"late_s": LATE_S},
}
"""Of 10,000 jobs, at most."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One case; None: it does not apply."""

    jobs: int
    case: str
    fill_ms: float | None = None
    lag_ms: float | None = None
    cpu_percent: float | None = None
    """Of the screen's process."""
    engine_cpu_percent: float | None = None
    """Of the engine, which polls each second, without the commands that it calls."""
    kb_per_s: float | None = None
    late_s: float | None = None
    """By how much the engine's latest tick was late."""
    recovered_ms: float | None = None
    memory_mib: float | None = None

    def missed(self) -> list[str]:
        limits = TARGETS.get(self.case, {}) if self.jobs == 10_000 else {}
        found = ((name, getattr(self, name), limit) for name, limit in limits.items())
        return [f"{name} {value:g} > {limit:g}" for name, value, limit in found if value > limit]


class Watch:
    """One site with one screen on it."""

    def __init__(self, site: Site, screen: Terminal, notes: Path, size: int) -> None:
        self._site = site
        self._screen = screen
        self._notes = notes
        self._size = size
        self._queue = Queue(size)

    def first_fill(self) -> Figures:
        """The rows come while their screen is open and empty."""
        self._screen.shows_at(_says("Overview", "acting"), 0.0, WITHIN_S)
        took: list[float] = []
        begin = time.monotonic()
        self._screen.press("3")
        for _ in range(FILLS):
            self._site.print_queue("")
            self._screen.shows_at(_says("Slurm shows no jobs"), begin, WITHIN_S)
            time.sleep(SETTLE_S)
            began = time.monotonic()
            self._site.print_queue(self._queue.text())
            filled = self._shown_at(began)
            took.append(filled - next(at for kind, at, _ in self._noted(began, filled) if kind == "jobs"))
            time.sleep(SETTLE_S)
        return self._filled("first fill", took, begin)

    def opened(self) -> Figures:
        """The rows are known, and their screen is opened by its key."""
        took: list[float] = []
        begin = time.monotonic()
        for _ in range(FILLS):
            self._screen.press("1")
            self._screen.shows_at(_says("Overview", "SERVICES"), time.monotonic(), WITHIN_S)
            time.sleep(SETTLE_S)
            pressed = time.monotonic()
            self._screen.press("3")
            took.append(self._shown_at(pressed) - pressed)
            time.sleep(SETTLE_S)
        return self._filled("opened", took, begin)

    def started(self) -> Figures:
        """Another screen is started, and the key of the jobs typed ahead."""
        notes = self._notes.with_name("notes-of-another")
        with Terminal(_screen_of(self._site, notes), self._site.directory) as another:
            another.press("3")
            shown = another.shows_at(self._first_rows(), another.started_at, WITHIN_S)
            return Figures(self._size, "started", fill_ms=round((shown - another.started_at) * 1000, 1))

    def _filled(self, case: str, took: Sequence[float], begin: float) -> Figures:
        lag = self._lag_ms(begin, time.monotonic())
        return Figures(self._size, case, fill_ms=round(max(took) * 1000, 1), lag_ms=lag)

    def _shown_at(self, since: float) -> float:
        return self._screen.shows_at(self._first_rows(), since, WITHIN_S)

    def _first_rows(self) -> Callable[[Picture], bool]:
        """The ids of the first rows, as they should be now, are on the screen one below the other."""
        ids = [str(number) for number in self._queue.shown(SCREENFUL)]

        def shown(picture: Picture) -> bool:
            found = [_JOB_ID.match(line) for line in picture.lines()]
            first = next((at for at, each in enumerate(found) if each and each[1] == ids[0]), len(found))
            return [each and each[1] for each in found[first : first + len(ids)]] == ids

        return shown

    def steady(self, case: str, seconds: float, step: Callable[[], None] | None = None) -> Figures:
        """After each second `step` changes the queue."""
        if step is not None:  # what parser and screen do for the first time is another case
            for _ in range(2):
                self._step(step)
        else:
            time.sleep(SETTLE_S)
        pids = (self._screen.pid, self._site.engine_pid)
        begin, before = time.monotonic(), [processes.cpu_s(pid) for pid in pids]
        while time.monotonic() - begin < seconds:
            self._step(step) if step is not None else time.sleep(0.5)
        end = time.monotonic()
        spent = [processes.cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)]
        shares = [round(each / (end - begin) * 100, 2) for each in spent]
        return Figures(
            self._size,
            case,
            lag_ms=self._lag_ms(begin, end),
            cpu_percent=shares[0],
            engine_cpu_percent=shares[1],
            kb_per_s=round(self._screen.bytes_between(begin, end) / (end - begin) / KB, 3),
            late_s=self._late_s(end - begin),
            memory_mib=round(processes.rss_mib(self._screen.pid)),
        )

    def changed(self, share: float, *, unseen: int = 0, moved: float = 0.0) -> Callable[[], None]:
        def step() -> None:
            self._queue.change(share, unseen=unseen, moved=moved)
            self._site.print_queue(self._queue.text())

        return step

    def not_read(self, seconds: float) -> Figures:
        """Nobody reads the terminal while a tenth of the queue changes each second, and its first rows with it; then
        somebody does again."""
        step = self.changed(0.1, moved=0.1)
        self._screen.stop_reading()
        begin, cpu = time.monotonic(), processes.cpu_s(self._screen.pid)
        while time.monotonic() - begin < seconds:
            self._step(step)
        late = self._late_s(seconds)
        spent = processes.cpu_s(self._screen.pid) - cpu
        memory = processes.rss_mib(self._screen.pid)
        again = time.monotonic()
        self._screen.read_on()
        recovered = self._shown_at(again)
        return Figures(
            self._size,
            "not read",
            cpu_percent=round(spent / seconds * 100, 2),
            late_s=late,
            recovered_ms=round((recovered - again) * 1000, 1),
            memory_mib=round(memory),
        )

    def _step(self, step: Callable[[], None]) -> None:
        began = time.monotonic()
        step()
        time.sleep(max(0.0, 1 / STEPS_A_S - (time.monotonic() - began)))

    def _noted(self, begin: float, end: float) -> list[tuple[str, float, float]]:
        """(kind, at, seconds) of the notes within these times."""
        found = []
        for line in self._notes.read_text().splitlines():
            kind, at, *rest = line.split()
            if begin <= float(at) <= end:
                found.append((kind, float(at), float(rest[0]) if rest else 0.0))
        return found

    def _lag_ms(self, begin: float, end: float) -> float:
        longest = max((took for kind, _, took in self._noted(begin, end) if kind == "busy"), default=0.0)
        return round(longest * 1000, 1)

    def _late_s(self, last_s: float) -> float:
        """The longest time between two ticks of late, less what it should be."""
        polls = [at for at in self._site.polls() if at >= time.time() - last_s]
        gaps = [after - before for before, after in itertools.pairwise(polls)]
        return round(max(0.0, max(gaps, default=last_s) - POLL_S), 3)


_JOB_ID = re.compile(r"\W*(\d+) ")


def _says(*words: str) -> Callable[[Picture], bool]:
    return lambda picture: all(word in picture.text() for word in words)


@contextmanager
def watching(size: int) -> Iterator[Watch]:
    """A site with so many jobs to come, and a screen of it."""
    with Site() as site:
        notes = site.directory / "notes"
        (site.directory / "saia").mkdir()
        Kept(site.directory / "saia" / "tui.json").put("tour", {"seen": True})
        with Terminal(_screen_of(site, notes), site.directory) as screen:
            yield Watch(site, screen, notes, size)


def _screen_of(site: Site, notes: Path) -> list[str]:
    return [sys.executable, "-m", "bench.screen.probed", str(notes), "--socket", str(site.socket)]


def measure(size: int, seconds: float, unread_s: float, say: Callable[[Figures], None]) -> None:
    with watching(size) as watch:
        say(watch.first_fill())
        say(watch.opened())
        say(watch.started())
        say(watch.steady("idle", seconds))
        say(watch.steady("nothing visible changed", seconds, watch.changed(0.01, unseen=LINES)))
        say(watch.steady("1 % changed", seconds, watch.changed(0.01)))
        say(watch.steady("10 % changed", seconds, watch.changed(0.1)))
        say(watch.steady("10 % changed, 1 % moved", seconds, watch.changed(0.1, moved=0.1)))
        say(watch.not_read(unread_s))


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="bench.screen.run", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--jobs", type=int, nargs="+", default=[10_000, 50_000])
    options.add_argument("--seconds", type=float, default=20.0, help="of each steady case")
    options.add_argument("--unread", type=float, default=30.0, help="seconds in which nobody reads")
    options.add_argument("--json", type=Path, default=RESULTS)
    asked = options.parse_args(arguments)
    load, found = machine.load_average(), []
    print(f"  jobs  {'case':24}  fill ms   lag ms    CPU % engine %     kB/s   late s back ms      MiB")

    def say(figures: Figures) -> None:
        found.append(figures)
        values = (
            figures.fill_ms, figures.lag_ms, figures.cpu_percent, figures.engine_cpu_percent, figures.kb_per_s,
            figures.late_s, figures.recovered_ms, figures.memory_mib,
        )  # fmt: skip
        cells = "".join(f"{'' if value is None else format(value, 'g'):>9}" for value in values)
        print(f"{figures.jobs:6,}  {figures.case:24}{cells}  {', '.join(figures.missed())}", flush=True)

    for size in asked.jobs:
        measure(size, asked.seconds, asked.unread, say)
    asked.json.write_text(json.dumps(_report(found, load), indent=1) + "\n", encoding="utf-8")
    return 1 if any(figures.missed() for figures in found) else 0


def _report(found: Sequence[Figures], load: float) -> dict[str, Any]:
    return {
        "what": f"saia-tui on a terminal of {COLUMNS}x{LINES}, Slurm polled every {POLL_S:g} s",
        "targets_at_10000": TARGETS,
        "machine": machine.facts(),
        "load_average_before": load,
        "versions": machine.versions(),
        "rows": [asdict(figures) | {"missed": figures.missed()} for figures in found],
    }


if __name__ == "__main__":
    sys.exit(main())
