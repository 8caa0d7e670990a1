"""The figures as a drawing: each path's share of what the direct way does, in plain SVG.

python -m bench.chart [RESULTS [SVG]]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

COLOURS = {
    "direct": "#8a8f98",
    "nginx": "#2f7d4f",
    "ours": "#2563b0",
    "asyncssh": "#7aa5dd",
    "litellm": "#b5651d",
    "exec": "#8e3a59",
}
WIDTH, LABEL, BAR, GAP = 860, 150, 13, 12
LEFT, TOP = 24, 96
LONGEST = WIDTH - 2 * LEFT - LABEL - 110


@dataclass(frozen=True, slots=True)
class Panel:
    """One question, answered for some loads."""

    title: str
    metric: str
    loads: tuple[str, ...]
    less_is_better: bool = False


CLIENTS = ("1 client", "16 clients", "64 clients", "256 clients")
STREAMS = ("100 slow streams", "150 streams", "300 streams", "1000 streams")
PANELS = (
    Panel("requests a second", "requests_per_s", CLIENTS),
    Panel("median time of a small request in ms", "p50_ms", CLIENTS, less_is_better=True),
    Panel("tokens delivered a second", "tokens_per_s", STREAMS),
    Panel("median time to a stream's first token in ms", "first_p50_ms", STREAMS, less_is_better=True),
    Panel("megabytes a second", "mb_per_s", ("1MB up", "1MB down", "50MB up", "50MB down")),
)


@dataclass(frozen=True, slots=True)
class Bar:
    path: str
    value: float
    ratio: float | None
    """To the direct way; none for that itself."""


def bars(document: Mapping[str, Any], load: str, metric: str) -> list[Bar]:
    found = document["loads"].get(load, {})
    return [
        Bar(path, shown["figures"][metric], shown.get("to_direct", {}).get(metric))
        for path, shown in found.items()
        if metric in shown["figures"]
    ]


def svg(document: Mapping[str, Any]) -> str:
    """The whole drawing; bars within a load are to scale with each other."""
    body: list[str] = []
    y = TOP
    for panel in PANELS:
        groups = [(load, found) for load in panel.loads if (found := bars(document, load, panel.metric))]
        if not groups:
            continue
        hint = "shorter is better" if panel.less_is_better else "longer is better"
        body.append(_text(LEFT, y, f"{panel.title} ({hint})", weight="bold"))
        y += 12
        for load, found in groups:
            body += _group(y, load, found)
            y += BAR * len(found) + GAP
        y += 22
    return "\n".join([*_head(document, y), *body, "</svg>", ""])


def _head(document: Mapping[str, Any], height: int) -> Iterator[str]:
    machine = document["machine"]
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    yield _text(LEFT, 28, "What a way to the service costs, beside the direct one", size=16, weight="bold")
    facts = (
        f"{machine['cpu']}, {machine['cores']} cores for all of it, the load too;"
        f" load average before: {document['load_average_before']}"
    )
    yield _text(LEFT, 48, facts, fill="#555")
    x = LEFT
    for path in (path for path, there in document["paths"].items() if there):
        yield f'<rect x="{x}" y="58" width="11" height="11" fill="{COLOURS.get(path, "#000")}"/>'
        yield _text(x + 16, 68, path)
        x += 90


def _group(y: int, load: str, found: list[Bar]) -> Iterator[str]:
    most = max(bar.value for bar in found) or 1.0
    yield _text(LEFT + LABEL - 10, y + BAR * len(found) / 2 + 4, load, anchor="end")
    for number, bar in enumerate(found):
        top, width = y + number * BAR, max(1.0, bar.value / most * LONGEST)
        yield (
            f'<rect x="{LEFT + LABEL}" y="{top}" width="{width:.1f}" height="{BAR - 2}"'
            f' fill="{COLOURS.get(bar.path, "#000")}"/>'
        )
        ratio = "" if bar.ratio is None else f"  {_short(bar.ratio)}x"
        yield _text(LEFT + LABEL + width + 6, top + BAR - 3, f"{_short(bar.value)}{ratio}", size=10)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    fill: str = "#222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="{fill}" xml:space="preserve">{escape(words)}</text>'
    )


def main() -> None:
    here = Path(__file__)
    given = [Path(word) for word in sys.argv[1:]]
    results = given[0] if given else here.parent / "results.json"
    drawing = given[1] if len(given) > 1 else here.parents[1] / "docs" / "images" / "bench.svg"
    drawing.write_text(svg(json.loads(results.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
