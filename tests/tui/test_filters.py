"""What an operator may type to see fewer rows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saia_engine.view import JobView, NodeView, ProxyView
from saia_tui.filters import BadFilter, Filter
from saia_tui.listings import JOBS, NODES, PROXIES
from saia_tui.patterns import LONGEST_PATTERN, LONGEST_TEXT, BadPattern, Pattern

TRAIN = JobView(88415, "train big", "anna", "RUNNING", "gpu", nodes="gpu01", gpus=4, time_limit_s=7200.0)
EVAL = JobView(88416, "eval/a=b", "bert", "PENDING", "gpu", reason="Priority", gpus=1)


def seen(text: str) -> str:
    """Which of the two jobs are shown."""
    wanted = Filter.parse(text, JOBS)
    with wanted.at_work():
        return "".join(letter for letter, row in (("t", TRAIN), ("e", EVAL)) if wanted.wants(row))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "te"),
        ("TRAIN", "t"),
        ("train gpu01", "t"),
        ("train bert", ""),
        ("!train", "e"),
        ('"train big"', "t"),
        ('"big train"', ""),
        ("!", ""),
        ("/tr.in/", "t"),
        ("/TRAIN +b/", "t"),
        ("!/tr.in/", "e"),
        (r"/eval\/a/", "e"),
        ("/eval", ""),  # no closing slash: a word
        ("~^884.. e", "e"),
        ("!~gpu0[1-3]", "e"),
        ("state=running", "t"),
        ("state!=running", "e"),
        ("!state=running", "e"),
        ("user=an", ""),
        ("user=an*", "t"),
        ("USER=Anna", "t"),
        ('name="train big"', "t"),
        ("name~^eval", "e"),
        ("name!~^eval", "t"),
        ("nodes=", "e"),
        ("nodes!=", "t"),
        ("nodes_reason=(priority)", "e"),
        ("job=88416", "e"),
        ("gpus>1", "t"),
        ("gpus>=1 gpus<4", "e"),
        ("gpus=4", "t"),
        ("limit>1h", "t"),
        ("time_limit_s<=7200", "t"),
        ('"a=b"', "e"),
    ],
)
def test_terms(text: str, shown: str) -> None:
    assert seen(text) == shown


def test_fields_that_are_lists_and_truths() -> None:
    node = NodeView("gpu01", "idle", ["gpu", "long"], usable=False)
    assert Filter.parse("partitions=long usable=no", NODES).wants is not None
    for text, wanted in (("partitions=long", True), ("partitions=lon", False), ("usable=no", True)):
        found = Filter.parse(text, NODES)
        with found.at_work():
            assert found.wants(node) is wanted
    with (linked := Filter.parse("link=connected", PROXIES)).at_work():
        assert linked.wants(ProxyView("cloud", [], connected=True))
        assert not linked.wants(ProxyView("cloud", []))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("/[/", "is no pattern"),
        ("~(a+)+$", "for ever"),
        ("name~(a|a)*b", "for ever"),
        ("~.*.*.*x", "too long"),
        ("~(.)\\1", "refer back"),
        ("~(?=a)", "no other kind of group"),
        ("~" + "a" * (LONGEST_PATTERN + 1), "at most"),
        ("a" * 501, "at most"),
        ("colour=red", "no field colour"),
        ("gpus>many", "a number only"),
        ("end_time<2h", "is a moment"),
    ],
)
def test_what_cannot_be_understood_is_told(text: str, word: str) -> None:
    with pytest.raises(BadFilter, match=re.escape(word)):
        Filter.parse(text, JOBS)


@given(st.text(max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    try:
        wanted = Filter.parse(text, JOBS)
    except BadFilter:
        return
    with wanted.at_work():
        wanted.wants(TRAIN)


@given(
    st.lists(
        st.sampled_from(["a", "b", ".", "[ab]", "(", "(?:", ")", "|", "*", "+", "?", "{2}", "{0,9}", "{1,}", r"\w"]),
        max_size=10,
    ).map("".join),
    st.text("ab", max_size=12),
)  # fmt: skip
def test_a_pattern_that_is_taken_finds_what_pythons_finds(source: str, text: str) -> None:
    try:
        pattern = Pattern(source)
    except BadPattern:
        return
    assert pattern.found_in(text) is (re.search(source, text, re.IGNORECASE) is not None)


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    assert Pattern("b").found_in("a" * (LONGEST_TEXT - 1) + "b")
    assert not Pattern("b").found_in("a" * LONGEST_TEXT + "b")
