"""Rates and durations as an operator reads them: three digits that count, and never a number where nobody told."""

from __future__ import annotations

from rich.text import Text

from saia_tui.cells import known


def took(seconds: float | None) -> str:
    """`8ms`, `240ms`, `1.30s`, `12.4s`, `2m05s`; `` if unknown."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


def rate(value: float | None) -> str:
    """Of a second: `0.02`, `6.4`, `41`, `1,204`; `` if unknown."""
    if value is None:
        return ""
    if 0 < value < 0.0995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def rate_cell(value: float | None, style: str = "") -> Text:
    return known(rate(value), style if value else "faint")


def took_cell(seconds: float | None, style: str = "") -> Text:
    return known(took(seconds), style)
