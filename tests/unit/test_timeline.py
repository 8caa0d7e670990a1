from saia_engine.model import Timing
from saia_engine.planner import timeline

TIMING = Timing(
    lead_floor_s=600, min_ready_s=10, drain_deadline_s=300, admission_margin_s=120, safety_margin_s=30
)
END = 100_000.0


def test_all_moments_follow_from_the_end() -> None:
    assert timeline.last_cut(END, TIMING) == END - 30
    assert timeline.admit_until(END, TIMING) == END - 30 - 120
    assert timeline.drain_by(END, TIMING) == END - 30 - 300
    assert timeline.submit_by(END, TIMING, lead_s=900, poll_s=15) == END - 30 - 300 - 10 - 900 - 30


def test_they_come_in_the_order_of_the_timeline() -> None:
    moments = [
        timeline.submit_by(END, TIMING, TIMING.lead_floor_s, 15),
        timeline.drain_by(END, TIMING),
        timeline.admit_until(END, TIMING),
        timeline.last_cut(END, TIMING),
        END,
    ]
    assert moments == sorted(moments)


def test_the_shortest_time_limit_is_the_way_from_submit_to_end() -> None:
    shortest = timeline.shortest_time_limit(TIMING, poll_s=15)
    assert shortest == END - timeline.submit_by(END, TIMING, TIMING.lead_floor_s, 15) == 970
    assert timeline.shortest_terms(TIMING, 15) == (
        ("lead_floor", 600),
        ("min_ready", 10),
        ("drain_deadline", 300),
        ("safety_margin", 30),
        ("2 polls", 30),
    )


def test_a_drain_must_cover_the_admission_margin() -> None:
    assert timeline.drain_covers_admission(TIMING)
    assert timeline.drain_covers_admission(Timing(drain_deadline_s=120, admission_margin_s=120))
    assert not timeline.drain_covers_admission(Timing(drain_deadline_s=119, admission_margin_s=120))
