import pytest

from saia_engine.edge.text import clean, plain


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text, ü and 漢字 as they are", "plain text, ü and 漢字 as they are"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("row\n99|RUNNING\r\t", "row\\n99|RUNNING\\r\\t"),
        ("\x9b31m \x7f \x00", "\\x9b31m \\x7f \\x00"),
        ("abc\u202efdp", "abc\\u202efdp"),
        ("a\u200bb\ufeffc\u2060d", "a\\u200bb\\ufeffc\\u2060d"),
        ("one\u2028two\u2029", "one\\u2028two\\u2029"),
        ("half\ud800", "half\\ud800"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("filler\u3164", "filler\\u3164"),
        ("wide\u00a0space\u3000", "wide\u00a0space\u3000"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_or_a_reader_not_see_becomes_visible(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def test_overlong_text_ends_in_an_ellipsis() -> None:
    assert clean("x" * 11, limit=10) == "x" * 9 + "…"
    assert clean("x" * 10, limit=10) == "x" * 10
    assert clean("\x1b" * 10, limit=10) == "\\x1b\\x1b\\…"


def test_a_huge_text_costs_no_more_than_what_is_shown_of_it() -> None:
    assert len(clean("\x1b" * 50_000_000, limit=80)) == 80
    assert len(plain(b"\xff" * 50_000_000, limit=80)) == 80


def test_bytes_and_other_values() -> None:
    assert plain("ü\x1b".encode()) == "ü\\x1b"
    assert plain(b"\xff\xfe ok") == "\\xff\\xfe ok"
    assert plain(None) == "None"
    assert plain(ValueError("bad\nthing")) == "bad\\nthing"
