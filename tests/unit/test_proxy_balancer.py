from __future__ import annotations

from collections import Counter

from saia_proxy.balancer import ADMIT_SLACK_S, CLOCK_SKEW_S, Target, choose

NOW = 1_000.0


def target(name: str, *, left_s: float = 600, draining: bool = False, upstream: str = "a") -> Target:
    return Target(upstream, name, "chat", NOW + left_s, draining)


def test_the_one_with_the_fewest_requests_in_flight_is_chosen():
    one, two = target("one"), target("two")
    assert choose([one, two], now=NOW, in_flight={"one": 3, "two": 2}) == two


def test_ties_are_broken_at_random():
    targets = [target(str(n)) for n in range(4)]
    chosen = Counter(choose(targets, now=NOW, in_flight={}) for _ in range(400))
    assert set(chosen) == set(targets)
    assert min(chosen.values()) > 50


def test_draining_and_tried_ones_are_left_out():
    told, said, tried, last = target("told", draining=True), target("said"), target("tried"), target("last")
    everything = {"now": NOW, "in_flight": {"last": 9}, "draining": {"said"}}
    assert choose([told, said, tried, last], tried={tried}, **everything) == last
    assert choose([told, said, tried], tried={tried}, **everything) is None


def test_one_instance_through_two_upstreams_counts_its_requests_once_but_is_tried_through_each():
    via_a, via_b, other = target("one"), target("one", upstream="b"), target("two")
    assert choose([via_a, via_b, other], now=NOW, in_flight={"one": 1}) == other
    assert choose([via_a, via_b], now=NOW, in_flight={}, tried={via_a}) == via_b


def test_one_that_just_refused_or_is_about_to_close_is_the_last_resort():
    resting, closing, good = target("r"), target("c", left_s=ADMIT_SLACK_S / 2), target("g")
    busy = {"g": 50}
    assert choose([resting, closing, good], now=NOW, in_flight=busy, resting={resting}) == good
    assert choose([resting], now=NOW, in_flight={}, resting={resting}) == resting
    assert choose([closing], now=NOW, in_flight={}) == closing


def test_after_admit_until_nothing_is_sent_but_for_the_skew_of_two_clocks():
    assert choose([target("just", left_s=-1)], now=NOW, in_flight={}) == target("just", left_s=-1)
    assert choose([target("past", left_s=-CLOCK_SKEW_S)], now=NOW, in_flight={}) is None
    assert choose([], now=NOW, in_flight={}) is None
