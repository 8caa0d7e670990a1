"""Strings that a stranger may choose (job names, comments, reasons, log lines, user agents), and where they are shown.

Each surface renders one string to the strips that a terminal gets; `faults` says what is wrong with them.
`python -m tests.tui.hostile --examples 1000000 --seconds 3600 --seed 1` tries many, and prints the seed of a failure.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any
from unicodedata import category

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.text import Text
from textual.strip import Strip

from saia_engine.client import Tables
from saia_engine.edge.lines import LineSplitter
from saia_engine.view import TABLES, AlarmView
from saia_tui.cells import fold, text
from saia_tui.columns import GAP, Sight, fit
from saia_tui.feed import Link
from saia_tui.headline import crumbs_line, status_line
from saia_tui.instance_page import job_lines, standing_lines, story_lines
from saia_tui.listings import LISTINGS
from saia_tui.log.pane import fold_hard
from saia_tui.widgets.segments import cell_segments
from saia_tui.windows.window import facts, label
from tests.tui import sample

CORPUS = (
    "\x1b[2J\x1b[4242;31mowned\x1b[0m",
    "\x1b]52;c;ZXZpbA==\x07\x1b]52;c;ZXZpbA==\x1b\\",
    "\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\",
    "\x1bc\x1b7\x1b8\x1b(0\x1b[?1049l\x1b[?1000h\x1b[6n\x1b[4242t",
    "\x9b4242;31m\x9d52;c;ZXZpbA==\x9c\x90q\x9c\x85next",
    "two\nlines\r\nthree\x0b\x0cfour\u2028five\u2029six\x85",
    "99999  forged  RUNNING\n88888  root  RUNNING",
    "\u202eright to left\u202c \u2066isolate\u2069 \u200f\u200e\u061c",
    "zero\u200bwidth\u200c\u200d\u2060\ufeff\u00adsoft",
    "job[/x] [bold red]markup[/] [@click=app.quit]q[/] [link=http://e]",
    "lone \udc80 \ud800 surrogates \udcff",
    "漢字の仕事" * 40,
    "👩‍👩‍👧‍👦👍🏽🇩🇪🏴\U000e0067\U000e0062\U000e007f",
    "e" + "\u0301" * 300 + "Z" + "\u0489\u20dd\u0e31" * 60,
    "\u115f\u1160\u3164\uffa0\u2800\ufe0f\u034f",
    "\ue000\U0010ffff\ufffe\u0378",
    "\x00\x01\x07\x08\x7f\x1a\x04\t\v",
    "a" * 5000,
    "\x1b" * 500,
    "%s %n {0} ${x} `id` $(id) ; rm -rf / \\x1b[31m \\u202e",
    "",
    " ",
    "…",
)
PIECES = (
    *(each[:24] for each in CORPUS),
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    "\x1b[", "\x1b]", "\x1b\\", "m", "H", "J", ";", "31", "?25l", "\u200d", "\u0301", "字", "👍", "🏽", "a", "Z", " ",
    "[/", "]",
    "[b]", "\\", "\ud83d", "\udc4d", "ﷺ", "𒐫", "ｗ", "ﾊ", "\u1100\u1161\u11a8", "\u0e33", "\u200b", "\ufe0e", "\ufe0f",
)  # fmt: skip
SEEN_BY_NO_TERMINAL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
OWN = re.compile(r"\x1b\[[0-9;]*m")
"""What the program itself sends in a line: colours."""
NOW = sample.NOW

Surface = Callable[[str, int], Iterable[Strip]]


def hostile(random: Random) -> str:
    """One string; mostly of pieces that mean something to a terminal, some of any code points."""
    if random.random() < 0.1:
        return "".join(chr(random.randrange(0x110000)) for _ in range(random.randrange(40)))
    joined = "".join(random.choice(PIECES) for _ in range(random.randrange(1, 24)))
    return joined * random.randrange(2, 60) if random.random() < 0.03 else joined


# ---------------------------------------------------------------- where strings are shown


def infected(row: Any, bad: str) -> Any:
    """The row with every string in it replaced."""
    changed: dict[str, Any] = {}
    for field in msgspec.structs.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, str):
            changed[field.name] = bad
        elif isinstance(value, list) and field.type == list[str]:
            changed[field.name] = [bad, bad]
    return msgspec.structs.replace(row, **changed)


def _strip(content: Text, width: int) -> Strip:
    return Strip(cell_segments(content, width, False))


def _row(table: str) -> Surface:
    listing = LISTINGS[table]
    healthy = next(iter(sample.state()[table].values()))

    def render(bad: str, width: int) -> Iterator[Strip]:
        row = infected(healthy, bad)
        segments: list[Segment] = []
        columns = fit(listing.columns, width)
        for column, cells in columns:
            segments += cell_segments(column.cell(row, Sight(NOW), cells), cells, column.right)
            segments.append(Segment(" " * GAP))
        yield Strip(segments).adjust_cell_length(width)
        listing.words(row)
        listing.order(row)

    return render


INSTANCE, JOB = next(iter(sample.instances().values())), next(iter(sample.jobs().values()))


def _page(bad: str, width: int) -> Iterator[Strip]:
    row, job = infected(INSTANCE, bad), infected(JOB, bad)
    told = {"text": bad, "severity": bad, "code": bad, "at": NOW, "uid": 1, "detail": {
        "rule": bad, "inputs": {bad: bad, "x": [bad]}, "refused": [[bad, bad]]}}  # fmt: skip
    story = {"instance": {"service": bad, "outcome": bad, "log_tail": bad}, "log": bad, "events": [told]}
    pages: tuple[Callable[[], list[Text]], ...] = (
        lambda: standing_lines(bad, row, job, story, NOW, width),
        lambda: standing_lines(bad, None, None, story, NOW, width),
        lambda: [*story_lines(row, story, NOW, width), *job_lines(row, job, NOW, width)],
    )
    # One a string: many strings matter more than each in every place.
    for line in pages[len(bad) % len(pages)]():
        yield _strip(line, width)


def _log(bad: str, width: int) -> Iterator[Strip]:
    splitter = LineSplitter()
    raw = bad.encode("utf-8", "surrogatepass")
    lines = splitter.feed(raw + b"\n" + raw[::-1] + b"\n")
    assert len(lines) == 2 * raw.count(b"\n") + 2
    for line in lines[:50]:
        for part in fold_hard(line.text, width)[:200]:
            assert cell_len(part) <= width
            yield _strip(text(part), width)


def _folded(bad: str, width: int) -> Iterator[Strip]:
    for part in fold(text(bad).plain, width):
        assert cell_len(part) <= width
        yield _strip(text(part), width)


def _window(bad: str, width: int) -> Iterator[Strip]:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False, force_terminal=True)
    for segments in console.render_lines(facts([(bad, bad), ("name", bad)]), pad=True):
        yield Strip(segments)
    for words in (label(bad).plain, text(bad).plain):  # titles and buttons, toasts
        yield _strip(Text(words), width)


def _lines(bad: str, width: int) -> Iterator[Strip]:
    tables = Tables()
    tables.engine = infected(sample.engine(), bad)
    tables.alarms = {bad: AlarmView(bad, bad, bad, bad, 0.0)}
    for link in (Link(up=True), Link(up=False, fault=bad)):
        yield _strip(status_line(tables, link, NOW, 0.0, width), width)
    yield _strip(crumbs_line(["services", bad, bad], width), width)


SURFACES: dict[str, Surface] = {
    **{table: _row(table) for table in TABLES if table in LISTINGS},
    "instance page": _page,
    "log": _log,
    "folded": _folded,
    "window": _window,
    "lines": _lines,
}


# ---------------------------------------------------------------- what must hold


_CONSOLE = Console(
    file=io.StringIO(), width=200, color_system="truecolor", legacy_windows=False, force_terminal=True
)


def faults(bad: str, surface: str, width: int) -> list[str]:
    """What is wrong with how a surface shows a string; empty: nothing is."""
    found = []
    for strip in SURFACES[surface](bad, width):
        cells = sum(cell_len(segment.text) for segment in strip)
        if cells != width:
            found.append(f"{cells} cells instead of {width}: {strip.text!r}")
        sent = OWN.sub("", strip.render(_CONSOLE))
        if not sent.isprintable() and (
            seen := {char for char in sent if category(char) in SEEN_BY_NO_TERMINAL}
        ):
            found.append(f"reaches the terminal: {sorted(map(ascii, seen))}")
        try:
            sent.encode()
        except UnicodeEncodeError as exc:
            found.append(str(exc))
    return found


WIDTHS = (8, 37, 80, 131)


def tried(number: int, seed: int) -> tuple[str, str, int]:
    """The string, surface and width of one example; the same for the same seed and number."""
    random = Random(seed * 1_000_003 + number)
    return hostile(random), random.choice(tuple(SURFACES)), random.choice(WIDTHS)


def hunt(examples: int, seed: int, seconds: float, first: int = 0) -> tuple[int, str]:
    """How many were tried, and what was wrong with the last of them."""
    until = time.monotonic() + seconds
    for number in range(first, first + examples):
        if time.monotonic() > until:
            return number - first, ""
        bad, surface, width = tried(number, seed)
        try:
            wrong = "; ".join(faults(bad, surface, width))
        except Exception as exc:
            wrong = f"{type(exc).__name__}: {exc}"
        if wrong:
            return (
                number - first + 1,
                f"seed {seed}, example {number}: {bad!a} on {surface}, {width} wide: {wrong}",
            )
    return examples, ""


@click.command()
@click.option("--examples", default=1_000_000, show_default=True)
@click.option("--seconds", default=3600.0, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--first", default=0, help="Number of the first example, to repeat one.")
def main(examples: int, seconds: float, seed: int, first: int) -> None:
    began = time.monotonic()
    done, wrong = hunt(examples, seed, seconds, first)
    click.echo(f"seed {seed}: {done:,} of {examples:,} examples in {time.monotonic() - began:.0f} s")
    if wrong:
        click.echo(ascii(wrong))
        sys.exit(1)
    if done < examples:
        click.echo(f"stopped by --seconds {seconds:.0f}; go on with --first {first + done}")


if __name__ == "__main__":
    main()
