"""One row of the requests' screen over the last hour: rates, times, failures by reason, queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid
from textual.widgets import Static

from saia_engine.client import ClientError
from saia_tui.cells import join, text
from saia_tui.feed import Engine
from saia_tui.listings.traffic import CLIENTS_DOING, REASONS
from saia_tui.widgets.plot import Curve, Plot
from saia_tui.windows.pages import Readable
from saia_tui.windows.window import Window, label

REFRESH_S = 10.0
FAILED = "failed:"
_STYLES = ("bad", "warn", "busy", "ours", "ok", "quiet", "strong", "faint", "")
Figures = Mapping[str, Sequence[float | None]]


class PlotsWindow(Window[None]):
    DEFAULT_CSS = """
    PlotsWindow > Readable { width: 100%; height: 100%; padding: 0 1; }
    PlotsWindow Grid { grid-size: 2 2; grid-gutter: 1 2; height: 1fr; }
    PlotsWindow.narrow Grid { grid-size: 1 4; grid-gutter: 0; height: auto; }
    PlotsWindow.narrow Plot { height: 9; }
    PlotsWindow.single Grid { grid-size: 1 1; }
    PlotsWindow #note { height: auto; max-height: 3; }
    """
    BINDINGS: ClassVar = [Binding("q,enter", "cancel", show=False)]
    AUTO_FOCUS = "Readable"

    def __init__(self, engine: Engine, table: str, row: str) -> None:
        super().__init__()
        self._engine = engine
        self._table = table
        self._row = row
        self._note = Static(text("Esc closes", "faint"), id="note")
        self._plots = {
            "rates": Plot("Requests", "a second", id="rates"),
            "times": Plot("Times", "seconds", id="times"),
            "failed": Plot("Failed, by reason", "a second", id="failed"),
            "held": Plot("Under way", "requests", id="held"),
        }
        if table == "keys":
            self._plots = {"rates": self._plots["rates"]}

    def compose(self) -> ComposeResult:
        with Readable() as box:
            box.border_title = label(f"{self._row}: the last hour, as the proxies tell")
            with Grid():
                yield from self._plots.values()
            yield self._note

    def on_mount(self) -> None:
        self._narrow()
        self.set_interval(REFRESH_S, self._ask)
        self._ask()

    def on_resize(self) -> None:
        self._narrow()

    def _narrow(self) -> None:
        self.set_class(self._table == "keys", "single")
        self.set_class(self.size.width < 100 and self._table != "keys", "narrow")

    def _ask(self) -> None:
        self.run_worker(self._read(), exclusive=True, group="past")

    async def _read(self) -> None:
        try:
            past = await self._engine.history(self._table, self._row)
        except ClientError as exc:
            self._note.update(text(str(exc), "warn"))
            return
        self._show(past.get("figures", {}), float(past.get("step_s", REFRESH_S)))

    def _show(self, figures: Figures, step_s: float) -> None:
        def curves(*named: tuple[str, str, str]) -> list[Curve]:
            return [Curve(name, figures.get(key, ()), style) for key, name, style in named]

        if self._table == "keys":
            told = curves(("requests_per_s", "admitted", "ours"), ("refused_per_s", "refused", "warn"))
            self._plots["rates"].show(told, step_s)
            return
        self._plots["rates"].show(
            curves(("requests_per_s", "ended", "ours"), ("errors_per_s", "errors", "bad")), step_s
        )
        times = curves(
            ("first_token_p50_s", "first token p50", "ours"),
            ("first_token_p95_s", "p95", "warn"),
            ("answer_p95_s", "answer p95", "busy"),
            ("waited_p95_s", "waited p95", "quiet"),
        )
        self._plots["times"].show([curve for curve in times if any(_told(curve.values))], step_s)
        reasons = [reason for reason in REASONS if FAILED + reason in figures]
        self._plots["failed"].show(
            [Curve(why, figures[FAILED + why], style) for why, style in zip(reasons, _STYLES, strict=False)],
            step_s,
        )
        self._plots["held"].show(
            curves(("in_flight", "open", "ours"), ("queued", "in the queue", "warn")), step_s
        )
        self._note.update(_meaning(reasons))


def _told(values: Sequence[float | None]) -> list[bool]:
    return [value is not None for value in values]


def _meaning(reasons: Sequence[str]) -> Any:
    """What the reasons that occurred mean, the faults first."""
    if not reasons:
        return text("Esc closes", "faint")
    meaning = join(
        *(
            part
            for why in reasons
            for part in (
                text(f"{why}: ", "quiet" if why in CLIENTS_DOING else "bad"),
                text(f"{REASONS[why]}   ", "faint"),
            )
        )
    )
    meaning.no_wrap = False
    return meaning
