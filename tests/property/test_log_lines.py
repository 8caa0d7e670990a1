"""Bytes of a log as lines: however they are cut into pieces, the lines are the same."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from saia_engine.edge.lines import Line, LineSplitter

LOG = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"\x1b[31m", b"\xff", "é".encode(), b"x" * 9])
)
CUTS = st.lists(st.integers(1, 7), min_size=1)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    cut, at = [], 0
    while at < len(data):
        size = sizes[len(cut) % len(sizes)]
        cut.append(data[at : at + size])
        at += size
    return cut


def all_lines(splitter: LineSplitter, parts: list[bytes]) -> list[Line]:
    lines = [line for part in parts for line in splitter.feed(part)]
    return lines if splitter.rest is None else [*lines, splitter.rest]


def expected(data: bytes, longest: int) -> list[Line]:
    lines, offset = [], 0
    for part in data.split(b"\n"):
        printed = part.rstrip(b"\r").rpartition(b"\r")[2]
        lines.append(Line(offset, printed[:longest], max(0, len(printed) - longest)))
        offset += len(part) + 1
    return lines if not data.endswith(b"\n") and data else lines[:-1]


@given(LOG, CUTS, st.integers(1, 12))
def test_lines_do_not_depend_on_how_the_bytes_come(
    parts: list[bytes], sizes: list[int], longest: int
) -> None:
    data = b"".join(parts)
    assert all_lines(LineSplitter(longest=longest), pieces(data, sizes)) == expected(data, longest)


@given(st.binary(max_size=300))
def test_no_line_holds_what_a_terminal_obeys_or_hides(data: bytes) -> None:
    for line in all_lines(LineSplitter(), [data]):
        shown = line.text
        assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        shown.encode("utf-8")
