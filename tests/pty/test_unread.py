"""A terminal that nobody reads, as behind a broken connection: what it costs, and what it shows afterwards."""

from __future__ import annotations

from bench.screen import run


def test_it_shows_what_is_true_when_it_is_read_again_and_costs_little_memory_until_then() -> None:
    with run.watching(2_000) as watch:
        watch.first_fill()
        before = watch.steady("10 % changed", 1.0, watch.changed(0.1, moved=0.1)).memory_mib
        unread = watch.not_read(8.0)
    assert before is not None and unread.memory_mib is not None
    assert unread.recovered_ms is not None and unread.recovered_ms < 10_000
    assert unread.memory_mib < before + 60
