"""Same seed, same trace: in another process, under another order of sets, with text or with values."""

from __future__ import annotations

import os
import subprocess
import sys

from saia_engine.simulator.run import Task, run_seed

HOURS = 1.5
TEXT_SEED = 5


def elsewhere(seed: int, hash_seed: str) -> str:
    code = (
        "from saia_engine.simulator.run import Task, run_seed;"
        f"print(run_seed(Task({seed}, {HOURS}, fingerprint=True)).fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_same_seed_gives_the_same_events_whatever_the_order_of_sets() -> None:
    assert elsewhere(3, "1") == elsewhere(3, "2")


def test_so_it_does_where_slurms_text_is_read() -> None:
    assert elsewhere(TEXT_SEED, "1") == elsewhere(TEXT_SEED, "2")


def test_another_seed_gives_other_events() -> None:
    assert len({run_seed(Task(seed, 0.5, fingerprint=True)).fingerprint for seed in (1, 2, 3)}) == 3


def test_who_watches_changes_nothing() -> None:
    plain = run_seed(Task(4, HOURS, fingerprint=True))
    traced = run_seed(Task(4, HOURS, fingerprint=True, trace=True))
    assert plain.fingerprint == traced.fingerprint


def test_a_run_that_ends_early_is_the_beginning_of_the_whole() -> None:
    whole = run_seed(Task(4, HOURS, trace=True))
    part = run_seed(Task(4, HOURS, trace=True, until_h=0.4))
    assert part.hours == 0.4
    assert part.events < whole.events
