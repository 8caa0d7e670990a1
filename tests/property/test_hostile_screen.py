"""Whatever strings come from outside, a terminal gets visible characters in their cells, and our colours.

`make test-hostile` tries a million.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tui.hostile import CORPUS, SURFACES, WIDTHS, faults, hunt

SEED = int(os.environ.get("SAIA_HOSTILE_SEED", "1"))
SHARES, EACH = 20, 1000


@pytest.mark.parametrize("surface", SURFACES)
def test_the_corpus_harms_nothing(surface: str) -> None:
    for bad in CORPUS:
        for width in WIDTHS:
            assert not faults(bad, surface, width), ascii(bad)


@pytest.mark.parametrize("share", range(SHARES))
def test_twenty_thousand_strings_harm_nothing(share: int) -> None:
    done, wrong = hunt(EACH, SEED, seconds=100.0, first=share * EACH)
    assert not wrong, f"after {done}: {wrong}"


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(codec=None), max_size=60),
    st.sampled_from(sorted(SURFACES)),
    st.sampled_from(WIDTHS),
)
def test_any_text_harms_nothing(bad: str, surface: str, width: int) -> None:
    assert not faults(bad, surface, width)


def test_what_reaches_a_terminal_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness sees a door that is left open."""
    monkeypatch.setattr("saia_tui.cells.clean", lambda value, limit=2000: value)
    done, wrong = hunt(500, SEED, seconds=60.0)
    assert wrong and done < 500
