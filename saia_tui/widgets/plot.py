"""Lines over the last hour, drawn by plotext, which is loaded only where a plot is shown."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual.widget import Widget

from saia_tui.palette import STYLES

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """Its style is one of the palette's."""

    name: str
    values: Values
    style: str = "ours"


class Plot(Widget):
    """Curves with their values now in the title. `step_s` apart, the newest at the right."""

    DEFAULT_CSS = "Plot { height: 1fr; min-height: 7; background: $surface; }"

    def __init__(self, title: str, unit: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._unit = unit
        self._curves: tuple[Curve, ...] = ()
        self._step_s = 10.0

    def show(self, curves: Sequence[Curve], step_s: float) -> None:
        if (tuple(curves), step_s) != (self._curves, self._step_s):
            self._curves, self._step_s = tuple(curves), step_s
            self.refresh()

    def render(self) -> Text:
        width, height = self.size
        head = _head(self._title, self._unit, self._curves)
        head.truncate(width, overflow="ellipsis")
        if not any(value is not None for curve in self._curves for value in curve.values):
            return Text("\n").join([head, Text("nothing in the last hour", STYLES["faint"])])
        drawn = draw(self._curves, width, height - 1, self._step_s)
        return Text("\n").join([head, Text.from_ansi(drawn, no_wrap=True, end="")])


def _head(title: str, unit: str, curves: Sequence[Curve]) -> Text:
    head = Text(title, STYLES["title"], no_wrap=True, end="")
    head.append(f" ({unit})", STYLES["quiet"])
    for curve in curves:
        now = next((value for value in reversed(curve.values) if value is not None), None)
        head.append(f"   ━ {curve.name} ", STYLES[curve.style])
        head.append("–" if now is None else f"{now:,.3g}", STYLES[""])
    return head


def draw(curves: Sequence[Curve], width: int, height: int, step_s: float) -> str:
    """The plot as lines with colours; a gap where nobody told."""
    plotext: Any = importlib.import_module("plotext")
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(max(20, width), max(4, height))
    longest = max(len(curve.values) for curve in curves)
    for curve in curves:
        offset = longest - len(curve.values)
        for run in _runs(curve.values):
            marks = [offset + number for number, _ in run]
            plotext.plot(marks, [value for _, value in run], marker="braille", color=_colour(curve.style))
    top = max(value for curve in curves for value in curve.values if value is not None)
    top = top or 1.0
    plotext.ylim(0, top * 1.02)
    plotext.yticks([0, top / 2, top], [f"{tick:.3g}" for tick in (0, top / 2, top)])
    plotext.xlim(0, max(longest - 1, 1))
    ticks = _ticks(longest, step_s)
    plotext.xticks([at for at, _ in ticks], [label for _, label in ticks])
    return str(plotext.build()).rstrip("\n")


def _runs(values: Values) -> list[list[tuple[int, float]]]:
    """Pieces without a gap."""
    runs: list[list[tuple[int, float]]] = [[]]
    for number, value in enumerate(values):
        if value is not None:
            runs[-1].append((number, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _ticks(length: int, step_s: float) -> list[tuple[int, str]]:
    """The beginning, the middle and now."""
    last = max(length - 1, 1)
    return [
        (at, f"-{(last - at) * step_s / 60:.0f} min" if at != last else "now") for at in (0, last // 2, last)
    ]


def _colour(style: str) -> tuple[int, int, int]:
    colour = STYLES[style].color
    assert colour is not None
    red, green, blue = colour.get_truecolor()
    return red, green, blue
