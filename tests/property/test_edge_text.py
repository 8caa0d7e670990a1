import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from saia_engine.edge.text import clean, plain

ANY_TEXT = st.text(st.characters())  # surrogates included
NEVER = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANY_TEXT, st.integers(1, 60))
def test_nothing_invisible_or_obeyed_survives_and_the_limit_holds(raw: str, limit: int) -> None:
    shown = clean(raw, limit)
    assert not [char for char in shown if unicodedata.category(char) in NEVER]
    assert len(shown) <= limit
    shown.encode("utf-8")


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(raw: str) -> None:
    assert clean(clean(raw)) == clean(raw)


@given(st.text(st.characters(categories=["Lu", "Ll", "Nd", "Po", "Zs"]), max_size=100))
def test_ordinary_text_stays_as_it_is(raw: str) -> None:
    assert clean(raw) == raw


@given(st.binary())
def test_bytes_never_hold_a_control_character(raw: bytes) -> None:
    assert not [char for char in plain(raw) if unicodedata.category(char) in NEVER]
