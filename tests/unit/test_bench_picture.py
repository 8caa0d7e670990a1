"""The picture that the screen's benchmark makes of what was written to a terminal."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bench.screen.picture import Picture

WRITTEN = (
    "\x1b[?1049h\x1b[2J\x1b[1;1H\x1b[38;2;1;2;3m▸ 4711 \x1b[0mtrain\r\n  4710 eval\x1b[2;3H47\x1b[31m99\x1b[m"
    "\x1b[3;9Htoo long"
).encode()
SHOWN = ["▸ 4711 train", "  4799 eval ", "        too "]


def test_it_shows_what_a_terminal_would() -> None:
    picture = Picture(12, 3)
    picture.feed(WRITTEN)
    assert picture.lines() == SHOWN
    picture.feed(b"\x1b[9;1Hbelow all of it\x1b[2J")
    assert picture.text().split("\n") == [" " * 12] * 3


@given(st.lists(st.integers(0, len(WRITTEN)), max_size=12))
def test_however_the_bytes_come_in_pieces(cuts: list[int]) -> None:
    picture = Picture(12, 3)
    places = [0, *sorted(cuts), len(WRITTEN)]
    for begin, end in itertools.pairwise(places):
        picture.feed(WRITTEN[begin:end])
    assert picture.lines() == SHOWN
