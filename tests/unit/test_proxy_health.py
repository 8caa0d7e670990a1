from __future__ import annotations

import pytest

from saia_proxy.health import LONGEST_EJECTION_S, Condition, Tolerance, Use

TOLERANCE = Tolerance(eject_after=3, eject_for_s=5.0, stall_after_s=30.0)


class Instance:
    """One instance's condition under a clock of our own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.condition = Condition()

    def use(self):
        return Use(self.condition, lambda: self.now, TOLERANCE)

    def answer(self, *statuses: int) -> None:
        for status in statuses:
            with self.use() as use:
                use.answered(status)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            with self.use() as use:
                use.failed()

    @property
    def doubtful(self) -> bool:
        return self.condition.doubtful(self.now, TOLERANCE)


@pytest.fixture
def instance() -> Instance:
    return Instance()


def test_requests_under_way_are_counted(instance: Instance):
    with instance.use(), instance.use():
        assert instance.condition.in_flight == 2
    assert instance.condition.in_flight == 0


def test_failures_in_a_row_eject_it(instance: Instance):
    instance.fail(2)
    instance.answer(200)
    instance.fail(2)
    assert not instance.doubtful
    instance.fail()
    assert instance.doubtful


def test_a_clients_fault_is_none_of_the_instances(instance: Instance):
    instance.answer(400, 401, 404, 422, 429, 400)
    assert not instance.doubtful
    instance.answer(500, 503, 502)
    assert instance.doubtful


def test_after_its_time_one_request_tries_it_and_its_answer_decides(instance: Instance):
    instance.fail(3)
    instance.now += 5
    assert not instance.doubtful
    with instance.use() as trial:
        assert instance.doubtful, "one request tries it, not all at once"
        trial.answered(200)
        assert not instance.doubtful
    instance.fail(2)
    assert not instance.doubtful, "it has begun anew"


def test_each_trial_that_fails_doubles_its_time_up_to_a_minute(instance: Instance):
    instance.fail(3)
    for for_s in (5, 10, 20, 40, 60, 60):
        instance.now += for_s - 1
        assert instance.doubtful
        instance.now += 1
        assert not instance.doubtful
        instance.fail()
    assert LONGEST_EJECTION_S == 60


def test_a_trial_whose_client_went_away_says_nothing(instance: Instance):
    instance.fail(3)
    instance.now += 5
    with instance.use():
        pass
    assert not instance.doubtful, "the next request tries it"


def test_what_was_under_way_before_the_ejection_ends_it_by_a_good_answer(instance: Instance):
    with instance.use() as slow:
        instance.fail(3)
        assert instance.doubtful
        slow.answered(200)
        assert not instance.doubtful


def test_without_a_byte_for_long_it_is_stalled_until_it_speaks(instance: Instance):
    with instance.use() as first:
        instance.now += 29
        with instance.use():
            instance.now += 2
            assert instance.doubtful, "a newer request is no sign of life"
            first.heard()
            assert not instance.doubtful


def test_who_has_nothing_to_do_does_not_stall(instance: Instance):
    instance.answer(200)
    instance.now += 3600
    assert not instance.doubtful
    with instance.use():
        assert not instance.doubtful


def test_an_open_websocket_may_be_silent(instance: Instance):
    with instance.use() as socket:
        socket.answered(101)
        socket.may_be_silent()
        instance.now += 3600
        assert not instance.doubtful
        with instance.use():
            assert not instance.doubtful, "its time begins now"
            instance.now += 31
            assert instance.doubtful
    assert instance.condition == Condition(heard_at=instance.now - 31)
