"""The bench of paths says what it measured: its arithmetic, its checks of answers, its table and its drawing."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET

import pytest

from bench import chart, exchange, figures, load, loads, measure, report, run
from bench.answers import Events, Whole
from bench.job import DOWNLOADS, REQUESTS, STREAMS, UPLOADS, Load, Outcome, Target, as_json, from_json
from bench.measure import Measured
from bench.service import Connection

ONE = Load("1 client", REQUESTS, 1, 1.0)


def measured(rate: float, p50_ms: float, **cpu_us: float) -> Measured:
    return Measured({"requests_per_s": rate, "p50_ms": p50_ms}, cpu_us, {"proxy": 60.0, "gate": 30.0}, {})


def test_percentiles_are_values_that_were_measured() -> None:
    assert figures.percentile([], 0.5) == 0.0
    assert figures.percentile([3.0], 0.99) == 3.0
    assert figures.percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert figures.percentile(range(1000), 0.99) == 990


def test_a_ratio_is_formed_within_each_round() -> None:
    # The second round ran on a machine half as fast: both paths fell, their ratio did not.
    ours = [{"requests_per_s": 50.0}, {"requests_per_s": 25.0}, {"requests_per_s": 40.0}]
    direct = [{"requests_per_s": 100.0}, {"requests_per_s": 50.0}, {"requests_per_s": 100.0}]
    assert figures.ratios(ours, direct) == {"requests_per_s": 0.5}
    assert figures.ratios([{"p50_ms": 1.0}], [{"p50_ms": 0.0}]) == {}, "nothing to divide by"
    assert figures.ratios([{}], [{"p50_ms": 1.0}]) == {}, "a round in which nothing was answered"


def test_an_entry_holds_medians_ratios_and_what_was_wrong() -> None:
    wrong = Measured({}, {}, {}, {"status 503": 2})
    found = report.entry(
        ONE,
        {
            "direct": [measured(1000, 1.0, service=20), measured(2000, 0.5, service=30)],
            "ours": [measured(100, 10.0, proxy=400), wrong],
        },
    )
    assert found["direct"]["figures"] == {"requests_per_s": 1500, "p50_ms": 0.75}
    assert found["direct"]["cpu_us_per_request"] == {"service": 25}
    assert "to_direct" not in found["direct"]
    assert found["ours"]["to_direct"] == {"requests_per_s": 0.1, "p50_ms": 10}
    assert found["ours"]["errors"] == {"status 503": 2}
    text = "\n".join(report.table("1 client", found))
    assert "100 (0.1x)" in text and "ours: WRONG 2 times: status 503" in text
    assert report.memory("1 client", found) == ["  memory at 1 client: proxy 60 MiB, gate 30 MiB"]


def test_figures_of_each_kind() -> None:
    outcome = Outcome(answered=100, in_all=101, seconds=2.0, timed={"p50_s": 0.004, "p99_s": 0.01})
    assert measure.figures(ONE, outcome) == {"requests_per_s": 50, "p50_ms": 4, "p99_ms": 10}
    body = Load("1MB up", UPLOADS, 4, 1.0, size=1_000_000)
    assert measure.figures(body, outcome)["mb_per_s"] == 50
    outcome.timed = {"tokens_per_s": 5000.0, "first_p50_s": 0.1, "gap_p99_s": 0.02}
    stream = Load("100 streams", STREAMS, 100, 1.0, rate=50, opens_per_s=250)
    assert measure.figures(stream, outcome) == {"tokens_per_s": 5000, "first_p50_ms": 100, "gap_p99_ms": 20}
    assert measure.figures(ONE, Outcome()) == {}


def test_a_job_survives_its_way_to_the_load() -> None:
    target = Target("127.0.0.1", 80, "key", ("ssh", "-x"), exact=False)
    assert from_json(as_json(ONE, target)) == (ONE, target)


def test_only_slow_paths_are_spared() -> None:
    every = [one for section in loads.sections(loads.WHOLE) for one in section]
    assert {one.name for one in every if loads.bears("exec", one)} == set(loads.SLOW_LOADS)
    assert all(loads.bears("ours", one) for one in every)
    assert set(loads.QUICK.names) <= {one.name for one in every}
    assert {one.kind for one in every} == {REQUESTS, STREAMS, UPLOADS, DOWNLOADS}
    assert [one.name for one in loads.chosen(every, ["1000"])] == ["1000 streams"]
    assert loads.turn(["a", "b", "c"], 4) == ["b", "c", "a"]


def test_an_answer_is_compared_byte_by_byte() -> None:
    for pieces, fault in (
        ([b"ab", b"c"], ""),
        ([b"ab"], "not as many bytes as the service's"),
        ([b"ab", b"d"], "other bytes than the service's"),
        ([b"abc", b"c"], "other bytes than the service's"),
    ):
        answer = Whole(b"abc", exact=True)
        for piece in pieces:
            answer.take(piece)
        assert answer.fault() == fault
    spelt_anew = Whole(exchange.ANSWER, exact=False)
    spelt_anew.take(exchange.ANSWER.replace(b":", b": "))
    assert spelt_anew.fault() == ""


@pytest.mark.parametrize("size", [1, 7, 20, 1000, 100_000])
def test_tokens_are_counted_however_the_stream_is_cut(size: int) -> None:
    stream = exchange.TOKEN_EVENT * 20 + exchange.LAST_EVENTS
    events = Events(20)
    for start in range(0, len(stream), size):
        events.take(stream[start : start + size])
    assert (events.tokens, events.fault()) == (20, "")
    events.take(exchange.TOKEN_EVENT)
    assert events.fault() == "not as many tokens as were asked for"


async def test_the_load_judges_the_service() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        small = await load.measured(Load("", REQUESTS, 3, 0.1), target)
        assert small.answered and small.in_all == small.answered + 3 and not small.errors
        down = await load.measured(Load("", DOWNLOADS, 1, 0.05, size=200_000), target)
        up = await load.measured(Load("", UPLOADS, 1, 0.05, size=200_000), target)
        assert down.answered and up.answered and not down.errors | up.errors
        stream = await load.measured(Load("", STREAMS, 5, 0.2, rate=50, opens_per_s=500), target)
        assert (stream.answered, stream.errors) == (5, {})
        assert stream.tokens % 5 == 0 and 0 < stream.timed["tokens_per_s"] <= 250
    gone = await load.measured(Load("", REQUESTS, 1, 0.1), target)
    assert not gone.answered and set(gone.errors) == {"at first: no connection", "no connection"}


def test_the_drawing_shows_what_there_is() -> None:
    document = {
        "machine": {"cpu": "A & B", "cores": 2},
        "load_average_before": 0.1,
        "paths": {"direct": "there", "ours": "0.1", "litellm": None},
        "loads": {"1 client": report.entry(ONE, {"direct": [measured(1000, 1)], "ours": [measured(250, 4)]})},
    }
    drawn = chart.svg(document)
    words = [text.text or "" for text in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert "250  0.25x" in words and "4  4x" in words and "litellm" not in words
    assert not any("tokens" in word for word in words), "a panel without figures"


def test_a_name_that_no_load_has_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.run", "--only", "nonsense"])
    assert run.main() == 2
    assert capsys.readouterr().out.startswith("no load has such a name; there are: 1 client, ")
