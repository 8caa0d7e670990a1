from __future__ import annotations

from saia_engine.edge.lines import Line, LineSplitter


def texts(data: bytes, longest: int = 100) -> list[str]:
    splitter = LineSplitter(longest=longest)
    lines = splitter.feed(data)
    return [line.text for line in ([*lines, splitter.rest] if splitter.rest else lines)]


def test_a_progress_bar_shows_its_last_state() -> None:
    assert texts(b"10%\r50%\r100%\r\ndone\n") == ["100%", "done"]
    assert texts(b"10%\r50%") == ["50%"]


def test_a_line_is_known_by_its_place_in_the_file() -> None:
    splitter = LineSplitter(1000)
    assert splitter.feed(b"one\ntwo\nthr") == [Line(1000, b"one"), Line(1004, b"two")]
    assert splitter.rest == Line(1008, b"thr")
    assert splitter.feed(b"ee\n") == [Line(1008, b"three")]
    assert (splitter.rest, splitter.end) == (None, 1014)


def test_an_endless_line_is_kept_in_bounded_memory_and_says_what_is_missing() -> None:
    splitter = LineSplitter(longest=10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    rest = splitter.rest
    assert rest is not None and rest.raw == b"x" * 10
    assert rest.text == "xxxxxxxxxx… and 999,990 bytes more"


def test_colours_are_dropped_and_all_else_that_is_no_text_is_shown_as_its_escape() -> None:
    assert texts(b"\x1b[1;31mERROR\x1b[0m \x1b[2J\x1b]52;c;x\x07\xff\xe2\x80\xae\n") == [
        r"ERROR \x1b[2J\x1b]52;c;x\x07\xff\u202e"
    ]
    assert texts(b"a\tb\n") == ["a       b"]
