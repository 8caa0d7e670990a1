"""From rounds to what is kept and what is shown: one document, and its table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import figures
from bench.job import STREAMS, Load
from bench.measure import Measured

BASES = ("direct", "nginx")
UNITS = {
    "requests_per_s": "requests/s",
    "mb_per_s": "MB/s",
    "tokens_per_s": "tokens/s",
    "p50_ms": "median ms",
    "p99_ms": "p99 ms",
    "first_p50_ms": "first token ms",
    "first_p99_ms": "first token p99 ms",
    "gap_p99_ms": "between tokens p99 ms",
}

Rounds = Mapping[str, Sequence[Measured]]
"""Of one load: path -> its rounds, in the same order for all."""


def entry(load: Load, rounds: Rounds) -> dict[str, Any]:
    """What one load showed: path -> medians over its rounds, ratios within them, what was wrong."""
    each = "cpu_us_per_token" if load.kind == STREAMS else "cpu_us_per_request"
    found: dict[str, Any] = {}
    for path, measured in rounds.items():
        shown: dict[str, Any] = {
            "rounds": len(measured),
            "figures": _rounded(figures.medians([one.figures for one in measured])),
        }
        for base in BASES:
            if base in rounds and base != path:
                others = [one.figures for one in rounds[base]]
                shown[f"to_{base}"] = _rounded(figures.ratios([one.figures for one in measured], others))
        shown[each] = _rounded(figures.medians([one.cpu_us for one in measured]))
        shown["rss_mib"] = _rounded(figures.medians([one.rss_mib for one in measured]))
        shown["errors"] = dict(sum((Counter(one.errors) for one in measured), Counter[str]()))
        found[path] = shown
    return found


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


# ---------------------------------------------------------------- for people


def table(load: str, entry: Mapping[str, Any]) -> list[str]:
    """Lines; behind each figure its ratio to the direct one."""
    lines = [f"{load:26}" + "".join(f"{path:>19}" for path in entry)]
    for metric in _metrics(entry):
        cells = (_cell(shown, metric) for shown in entry.values())
        lines.append(f"  {UNITS.get(metric, metric):24}" + "".join(f"{cell:>19}" for cell in cells))
    for path, shown in entry.items():
        each = next(key for key in shown if key.startswith("cpu_us"))
        spent = "  ".join(f"{part} {us:.0f}" for part, us in shown[each].items())
        lines.append(f"  {path}: µs of processor a {each.rpartition('_')[2]}: {spent}")
        for fault, count in shown["errors"].items():
            lines.append(f"  {path}: WRONG {count} times: {fault}")
    return lines


def _metrics(entry: Mapping[str, Any]) -> list[str]:
    known = {metric for shown in entry.values() for metric in shown["figures"]}
    return [metric for metric in UNITS if metric in known]


def _cell(shown: Mapping[str, Any], metric: str) -> str:
    value = shown["figures"].get(metric)
    if value is None:
        return "-"
    ratio = shown.get("to_direct", {}).get(metric)
    return f"{_short(value)} ({_short(ratio)}x)" if ratio else _short(value)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def memory(load: str, entry: Mapping[str, Any], parts: Iterable[str] = ("proxy", "gate")) -> list[str]:
    """What our parts had in use, in words."""
    shown = entry.get("ours", {}).get("rss_mib", {})
    said = ", ".join(f"{part} {shown[part]:.0f} MiB" for part in parts if part in shown)
    return [f"  memory at {load}: {said}"] if said else []
