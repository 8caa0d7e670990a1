"""Whatever users put into names and admins into reasons, rows stay rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saia_engine.edge.text import clean
from saia_engine.slurm import text

NONCE = "fedcba9876543210"
END = f"|{NONCE}|"

digits = st.integers(1, 2**32 - 1).map(str)
hostile = st.one_of(
    st.text(),
    st.text(alphabet="\n\r|0123456789 RUNNINGgpu\x1b[]-\x85\u2028"),
    st.just("x\n99|RUNNING|1|1|1|1:00|0|1|1|1|root|gpu|gpu01"),
    st.just("|0000000000000000|"),
    st.just(f"|{NONCE[:-1]}|"),
)
heads = st.tuples(
    digits,
    st.sampled_from(["RUNNING", "PENDING", "COMPLETING", "NODE_FAIL"]),
    digits,
    st.one_of(digits, st.just("N/A")),
    st.one_of(digits, st.just("N/A"), st.just("NONE")),
    st.sampled_from(["5:00", "1-00:00:00", "UNLIMITED", "NOT_SET"]),
    digits,
    st.integers(1, 9).map(str),
    digits,
    digits,
    st.just("anna"),
    st.just("gpu"),
    st.sampled_from(["", "gpu01", "gpu[01-03,07]"]),
)


@given(st.lists(st.tuples(heads, st.lists(hostile, min_size=5, max_size=5))))
def test_hostile_texts_forge_no_row_and_hide_none(table):
    printed = "".join("|".join(head) + END + END.join(texts) + END + "\n" for head, texts in table)
    found = text.jobs(printed, NONCE)
    assert [str(job.id) for job in found] == [head[0] for head, _ in table]
    assert [job.name for job in found] == [texts[-1] for _, texts in table]
    assert [job.state for job in found] == [head[1] for head, _ in table]


@given(st.lists(st.tuples(heads, st.lists(hostile, min_size=5, max_size=5)), min_size=1), st.data())
def test_a_cut_answer_is_an_error_or_whole_rows_never_half_a_row(table, data):
    rows = ["|".join(head) + END + END.join(texts) + END + "\n" for head, texts in table]
    printed = "".join(rows)
    cut = data.draw(st.integers(0, len(printed) - 1))
    try:
        found = text.jobs(printed[:cut], NONCE)
    except text.Unparsable:
        return
    whole = text.jobs(printed, NONCE)
    assert found == whole[: len(found)]


@given(st.text())
def test_any_text_is_parsed_or_refused_in_one_clean_line(printed):
    for parse in (
        text.time_limit,
        text.epoch,
        text.node_names,
        text.boot_time,
        text.controller_time,
        text.submitted_id,
        text.gpus,
    ):
        try:
            parse(printed)
        except text.Unparsable as exc:
            assert str(exc) == clean(str(exc))


@given(
    st.lists(
        st.sampled_from("ReservationName= StartTime= EndTime= Nodes= Flags=MAINT 5 gpu[1-2] x \n".split(" "))
    )
)
def test_no_reservation_breaks_the_reading(words):
    for reservation in text.reservations(" ".join(words)):
        assert reservation.start >= 0 and "\n" not in reservation.name


@given(st.text(alphabet="gresu:/=,()0123a |\n"))
def test_gpu_counts_never_fail_for_what_users_write(printed):
    assert text.gpus(printed)[1] >= 0


@given(st.text(alphabet="abz019-_.", min_size=1), st.lists(st.integers(0, 999), min_size=1, max_size=20))
def test_node_lists_expand_to_what_was_compressed(prefix, numbers):
    if prefix in ("-", "."):
        prefix = "n"
    compressed = f"{prefix}[{','.join(f'{number:03d}' for number in numbers)}]"
    assert list(text.node_names(compressed)) == [f"{prefix}{number:03d}" for number in numbers]


@given(st.text())
def test_a_complaint_is_one_clean_line(said):
    line = text.first_line(said)
    assert line == clean(line)
