"""The lines around the screen: how the engine is, where one is, what one can press."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from saia_engine.client import Tables
from saia_engine.model import Severity
from saia_engine.view import EngineView
from saia_tui import moments
from saia_tui.actions import Action, shown_keys
from saia_tui.arming import Arming
from saia_tui.cells import join, text
from saia_tui.feed import Link, is_late
from saia_tui.palette import STYLES
from saia_tui.replay.standing import Standing

ROOMY = 100
"""Columns from which the tabs stand further apart."""
VIEWS = ("overview", "services", "jobs", "nodes", "requests", "events", "proxies")


def status_line(
    tables: Tables,
    link: Link,
    now: float,
    monotonic: float,
    width: int,
    arming: Arming | None = None,
    replay: Standing | None = None,
) -> Text:
    """Link and engine in one line; what is wrong comes first and fills the line. `arming`: where one may act."""
    engine = tables.engine
    if replay is not None and replay.missing:
        return _bar(f" {replay.words()}  ▲ {replay.missing}", "alert", width)
    if not link.up:
        return _bar(_away(link, engine is not None, monotonic), "alert", width)
    if engine is None:
        return _bar(" connected, waiting for the engine's state", "header", width)
    mode = text(" saia ", "tab") if replay is None else text(f" {replay.words()} ", "alert")
    left = join(mode, text(f" {engine.cluster}", "strong"), text(f" {engine.kind}  ", "quiet"))
    right = join(*_gpus(tables), text(f"{engine.host}  v{engine.version} ", "quiet"))
    left = join(left, *_worry(engine, now), *_armed(None if replay else arming))
    gap = width - left.cell_len - right.cell_len
    if gap < 2:
        return left
    return join(left, text(" " * gap), right)


def _armed(arming: Arming | None) -> list[Text]:
    """Nothing while acts are locked: the line of hints tells how to arm them."""
    if arming is None:
        return []
    if arming.read_only:
        return [text("  read-only", "quiet")]
    return [text(f"  ◆ ARMED {arming.minutes_left} min", "warn")] if arming.armed else []


def _worry(engine: EngineView, now: float) -> list[Text]:
    if not engine.acting:
        return [text(f" ▲ not acting: {engine.not_acting_because or 'observes only'} ", "alert")]
    if engine.slurm_fault:
        return [text(f" ▲ Slurm: {engine.slurm_fault} ", "alert"), _data_age(engine, now)]
    if engine.snapshot_at is None:
        return [text("◑ waiting for Slurm's first answer", "busy")]
    if is_late(engine, now):
        return [text(" ▲ Slurm is silent ", "alert"), _data_age(engine, now)]
    return [text("● acting", "ok")]


def _data_age(engine: EngineView, now: float) -> Text:
    if engine.snapshot_at is None:
        return text("  no data yet", "warn")
    return text(f"  data of {moments.age(now - engine.snapshot_at)} ago", "warn")


def _gpus(tables: Tables) -> list[Text]:
    total = sum(node.gpus for node in tables.nodes.values())
    if not total:
        return []
    ours = sum(node.gpus_ours for node in tables.nodes.values())
    free = sum(node.gpus - node.gpus_allocated for node in tables.nodes.values() if node.usable)
    return [
        text("GPUs ", "quiet"),
        text(f"{ours} ours", "ours"),
        text(f"  {free} free", "ok" if free else "quiet"),
        text(f"  of {total}    ", "quiet"),
    ]


def _away(link: Link, had_data: bool, monotonic: float) -> str:
    wait = max(0.0, (link.next_try or monotonic) - monotonic)
    again = f"next try in {moments.exact(wait + 0.99)}" if wait else "trying"
    if not had_data:
        return f" ▲ no engine yet: {link.fault or 'connecting'}, {again}"
    gone = moments.exact(monotonic - (link.lost_at if link.lost_at is not None else monotonic))
    return f" ▲ engine away {gone}, {again}; shown is the last known state ({link.fault})"


def _bar(words: str, style: str, width: int) -> Text:
    line = text(words, style)
    line.truncate(width, overflow="ellipsis", pad=True)
    return line


def tabs_line(tables: Tables, current: str, captions: Sequence[str], width: int) -> Text:
    """The screens by number, the present one in brackets, and at the right the first of its captions that fits."""
    apart = "  " if width >= ROOMY else " "
    line = join()
    for number, name in enumerate(VIEWS, 1):
        here = name == current
        before, after = ("[", "]") if here else ("", "")
        words = join(
            text(f"{before}{number} ", "key"), text(name.capitalize(), "strong" if here else "quiet")
        )
        line.append_text(join(apart if number > 1 else " ", words, text(after, "key")))
        if name == "overview" and (worst := _worst(tables)) is not None:
            line.append_text(join(" ", worst))
    room = width - line.cell_len - 3
    caption = next((caption for caption in captions if 0 < len(caption) <= room), "")
    return join(line, text(caption.rjust(room + 2), "quiet")) if caption else line


def crumbs_line(crumbs: Sequence[str], width: int) -> Text:
    """The way down to what is shown; blank at a screen, which its tab names. The beginning gives way first."""
    if len(crumbs) < 2:
        return text("")
    *above, here = [text(word, "quiet") for word in crumbs]
    line = join(" ", *(part for word in above for part in (word, text(" › ", "faint"))))
    line.append_text(text(here.plain, "strong"))
    over = line.cell_len - width
    return join(text(" …", "faint"), line[over + 2 :]) if over > 0 else line


def _worst(tables: Tables) -> Text | None:
    critical = sum(alarm.severity == Severity.CRITICAL for alarm in tables.alarms.values())
    warning = sum(alarm.severity == Severity.WARNING for alarm in tables.alarms.values())
    if critical:
        return text(f"✖{critical}", "bad")
    return text(f"▲{warning}", "warn") if warning else None


def hints_line(actions: Sequence[Action], width: int) -> Text:
    """Keys and words, as many as fit; help and quit always do."""
    last = [action for action in actions if action.group == "Program"]
    others = [action for action in actions if action.group != "Program"]
    while others and _hints(others + last).cell_len > width:
        others.pop()
    return _hints(others + last)


def _hints(actions: Sequence[Action]) -> Text:
    line = Text(" ", no_wrap=True, end="")
    for action in actions:
        line.append(shown_keys(action)[0], STYLES["key"])
        line.append(f" {action.hint}   ", STYLES["quiet"])
    return line
