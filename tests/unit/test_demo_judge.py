"""What counts as a hand-over, and what a run came to."""

from __future__ import annotations

from typing import Any

import pytest

from saia_engine.demo.judge import Figures, Record
from saia_engine.view import EventView, InstanceView

GOOD = Figures(
    handovers=3,
    requests=100,
    failed=0,
    dropped_streams=0,
    streams_across_handovers=4,
    max_gap_ms=120,
    submits=7,
    orphans=0,
)


def instance(name: str, state: str, replaces: str = "", drain_kind: str = "") -> InstanceView:
    return InstanceView(
        id=name, service="chat", state=state, since=0.0, replaces=replaces, drain_kind=drain_kind
    )


def event(seq: int, code: str, subject: str, at: float = 0.0) -> EventView:
    return EventView(seq=seq, at=at, code=code, severity="info", subject=subject, text="")


def stream(server: str, started_at: float, ended_at: float, *, ok: bool = True) -> dict[str, Any]:
    return {
        "instance": server,
        "started_at": started_at,
        "ended_at": ended_at,
        "ok": ok,
        "cut_by_us": False,
        "max_gap_ms": 100.0,
    }


def report(
    *finished: dict[str, Any], served: tuple[str, ...] = ("old", "new"), **figures: Any
) -> dict[str, Any]:
    return {
        "requests": 10,
        "failed": 0,
        "dropped_streams": 0,
        "max_gap_ms": 100.4,
        "served_by": dict.fromkeys(served, 5),
        "finished": list(finished),
        "faults": [],
        **figures,
    }


def handed_over(
    old_state: str = "stopped", drain_kind: str = "handover", new_replaces: str = "old"
) -> dict[str, InstanceView]:
    rows = [
        instance("old", old_state, drain_kind=drain_kind),
        instance("new", "ready", replaces=new_replaces),
    ]
    return {row.id: row for row in rows}


DRAIN = event(4, "drain", "old", at=100.0)


def test_a_handover_with_the_streams_across_it() -> None:
    record = Record()
    record.see(handed_over(), [event(1, "submitted", "old"), event(2, "submitted", "new"), DRAIN])
    record.hear(
        report(
            stream("old", 90.0, 110.0),
            stream("old", 95.0, 105.0),
            stream("old", 80.0, 99.0),  # over before the drain
            stream("new", 90.0, 110.0),  # on the other one
            stream("old", 91.0, 111.0, ok=False),  # not whole
        )
    )
    figures = record.figures(orphans=0)
    assert (figures.handovers, figures.streams_across_handovers, figures.submits) == (1, 2, 2)
    assert (figures.requests, figures.max_gap_ms) == (10, 100)
    assert figures.faults() == []


@pytest.mark.parametrize(
    "rows",
    [
        handed_over(old_state="draining"),
        handed_over(drain_kind="surplus"),
        handed_over(drain_kind=""),
        handed_over(new_replaces=""),
        handed_over(new_replaces="another"),
    ],
    ids=["job not ended", "surplus", "never drained", "replaces nobody", "replaces one never seen"],
)
def test_what_is_no_handover(rows: dict[str, InstanceView]) -> None:
    record = Record()
    record.see(rows, [DRAIN])
    record.hear(report(stream("old", 90.0, 110.0)))
    figures = record.figures(orphans=0)
    assert (figures.handovers, figures.streams_across_handovers) == (0, 0)
    assert figures.faults()


@pytest.mark.parametrize("served", [("old",), ("new",), ()])
def test_both_must_have_served(served: tuple[str, ...]) -> None:
    record = Record()
    record.see(handed_over(), [DRAIN])
    record.hear(report(stream("old", 90.0, 110.0), served=served))
    assert record.handovers == []


def test_what_the_engine_and_the_traffic_forget_still_counts() -> None:
    record = Record()
    record.see(handed_over(), [event(1, "submitted", "old"), event(2, "submitted", "new"), DRAIN])
    record.hear(report(stream("old", 90.0, 110.0)))
    record.see({}, [event(9, "submit-unknown", "third")])
    record.hear(report())
    figures = record.figures(orphans=0)
    assert (figures.handovers, figures.streams_across_handovers, figures.submits) == (1, 1, 3)


def test_the_same_rows_seen_twice_count_once() -> None:
    record = Record()
    for _ in range(2):
        record.see(handed_over(), [event(1, "submitted", "old"), DRAIN])
        record.hear(report(stream("old", 90.0, 110.0)))
    figures = record.figures(orphans=0)
    assert (figures.handovers, figures.streams_across_handovers, figures.submits) == (1, 1, 1)


def test_of_a_withdrawn_drain_the_next_one_counts() -> None:
    record = Record()
    record.see(handed_over(), [DRAIN, event(6, "drain", "old", at=120.0)])
    record.hear(report(stream("old", 90.0, 110.0), stream("old", 110.0, 125.0)))
    assert [handover.streams for handover in record.handovers] == [1]


def test_nothing_seen_is_no_good_run() -> None:
    assert Record().figures(orphans=0).faults()


@pytest.mark.parametrize(
    ("name", "value"),
    [("failed", 1), ("dropped_streams", 1), ("streams_across_handovers", 0), ("orphans", 1)],
)
def test_each_of_these_alone_spoils_a_run(name: str, value: int) -> None:
    assert GOOD.faults() == []
    assert len(Figures(**{**GOOD.as_dict(), name: value}).faults()) == 1


def test_the_clients_faults_are_told() -> None:
    record = Record()
    fault = {"at": 1.0, "kind": "stream", "instance": "", "fault": "status 503"}
    record.hear(report(failed=1, faults=[fault]))
    assert record.faults == ["stream at no instance: status 503"]
    assert record.figures(orphans=0).failed == 1
