from __future__ import annotations

import random
from collections import Counter

from saia_proxy.balancer import ADMIT_SLACK_S, CLOCK_SKEW_S, Target
from saia_proxy.balancer import choose as choose_by

NOW = 1_000.0


def target(name: str, *, left_s: float = 600, draining: bool = False, upstream: str = "a") -> Target:
    return Target(upstream, name, "chat", NOW + left_s, draining)


def choose(targets: list[Target], busy: dict[str, int] | None = None, **more) -> Target | None:
    counts = busy or {}
    return choose_by(targets, now=NOW, in_flight=lambda name: counts.get(name, 0), **more)


def test_of_two_the_one_with_fewer_requests_in_flight_is_chosen():
    one, two = target("one"), target("two")
    assert choose([one, two], {"one": 3, "two": 2}) == two


def test_of_many_two_at_random_are_compared_so_that_several_proxies_do_not_all_run_to_one():
    targets = [target(str(n)) for n in range(4)]
    chosen = Counter(choose(targets, {"1": 1, "2": 2, "3": 3}) for _ in range(600))
    # The least busy is in half of all pairs, the busiest never wins one.
    assert 200 < chosen[targets[0]] < 400
    assert chosen[targets[3]] == 0


def test_ties_are_broken_at_random():
    targets = [target(str(n)) for n in range(4)]
    chosen = Counter(choose(targets) for _ in range(400))
    assert set(chosen) == set(targets)
    assert min(chosen.values()) > 50


def test_draining_and_tried_ones_are_left_out():
    told, said, tried, last = target("told", draining=True), target("said"), target("tried"), target("last")
    assert choose([told, said, tried, last], {"last": 9}, draining={"said"}, tried={tried}) == last
    assert choose([told, said, tried], draining={"said"}, tried={tried}) is None


def test_one_instance_through_two_upstreams_counts_its_requests_once_but_is_tried_through_each():
    via_a, via_b, other = target("one"), target("one", upstream="b"), target("two")
    assert choose([via_a, other], {"one": 1}) == choose([via_b, other], {"one": 1}) == other
    assert choose([via_a, via_b], tried={via_a}) == via_b


def test_one_that_is_doubtful_or_about_to_close_is_the_last_resort():
    bad, closing, good = target("r"), target("c", left_s=ADMIT_SLACK_S / 2), target("g")
    assert choose([bad, closing, good], {"g": 50}, doubtful={bad}.__contains__) == good
    assert choose([bad], doubtful={bad}.__contains__) == bad
    assert choose([closing]) == closing


def test_after_admit_until_nothing_is_sent_but_for_the_skew_of_two_clocks():
    assert choose([target("just", left_s=-1)]) == target("just", left_s=-1)
    assert choose([target("past", left_s=-CLOCK_SKEW_S)]) is None
    assert choose([]) is None


# ---------------------------------------------------------------- affinity


def test_the_same_client_goes_to_the_same_instance_and_many_spread():
    targets = [target(str(n)) for n in range(4)]
    by_client = {n: {choose(targets, affinity=b"%d" % n) for _ in range(20)} for n in range(200)}
    assert all(len(chosen) == 1 for chosen in by_client.values())
    assert min(Counter(min(chosen, key=str) for chosen in by_client.values()).values()) > 20


def test_who_leaves_moves_only_its_own_clients():
    targets = [target(str(n)) for n in range(5)]
    for client in (b"%d" % n for n in range(100)):
        before, after = choose(targets, affinity=client), choose(targets[1:], affinity=client)
        assert before == after or before == targets[0]


def test_affinity_yields_where_its_instance_has_much_more_to_do():
    targets = [target(str(n)) for n in range(4)]
    mine = choose(targets, affinity=b"me")
    assert mine is not None
    even = {t.instance: 8 for t in targets}
    assert choose(targets, even, affinity=b"me") == mine
    assert choose(targets, {**even, mine.instance: 16}, affinity=b"me") != mine


def test_affinity_is_to_the_instance_by_whatever_way():
    ways = [target("one", upstream="a"), target("one", upstream="b"), target("two", upstream="a")]
    client = next(c for c in (b"%d" % n for n in range(99)) if choose(ways, affinity=c).instance == "one")  # type: ignore[union-attr]
    assert {choose(ways, affinity=client) for _ in range(50)} == set(ways[:2])


def test_choices_repeat_with_the_same_chance():
    targets = [target(str(n)) for n in range(9)]

    def run() -> list[Target | None]:
        sample = random.Random(4).sample
        return [choose(targets, sample=sample) for _ in range(50)]

    assert run() == run()
