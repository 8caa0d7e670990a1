"""The oracle, promise by promise: the shortest story that breaks it, and one that only nearly does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import Oracle
from saia_engine.simulator.truth import ReadRoute, Wish

POLL_S = 15.0
CHAT = Wish(
    "chat",
    replicas=1,
    min_available=0,
    time_limit_s=7200.0,
    revision="r1",
    lead_floor_s=600.0,
    lead_cap_s=1200.0,
    min_ready_s=10.0,
    drain_deadline_s=300.0,
    admission_margin_s=120.0,
    safety_margin_s=30.0,
)
BEGAN = truth.Began(1000.0, 0, "k7f3", "hpc", "svc", POLL_S, 30.0, 10.0, 60.0, 300.0)
EARLIEST_S = 1200 + 10 + 300 + 30 + 2 * POLL_S
"""So long before its end an instance's replacement may be submitted at the earliest."""
LATEST_S = EARLIEST_S - 600
ADMIT_S = 150.0
"""So long before its end an instance admits no more."""


class Story:
    """Tells the oracle what happens, second by second. `host` is where the engine runs."""

    def __init__(self, *wishes: Wish, per_hour: int = 120, host: str = "a") -> None:
        self.oracle = Oracle()
        self.at = BEGAN.at
        self.epoch = 0
        self.engine = ""
        self.next_id = 1
        self.jobs: dict[str, truth.JobChanged] = {}
        self.oracle.see(BEGAN)
        self.per_hour = per_hour
        self.wish(*(wishes or (CHAT,)))
        self.start(host)
        self.poll()

    def tell(self, kind: type, *values: object, **named: object) -> None:
        self.oracle.see(kind(self.at, *values, **named))

    def wait(self, seconds: float) -> None:
        self.at += seconds

    def broken(self) -> set[int]:
        self.oracle.finish(self.at + 16)
        return {violation.promise for violation in self.oracle.violations}

    # -- what is wanted, and engines

    def wish(self, *wishes: Wish) -> None:
        self.tell(truth.Configured, {w.name: w for w in wishes}, self.per_hour)

    def order(self, verb: str, instance: str = "", service: str = "chat", confirmed: bool = True) -> None:
        self.tell(truth.OperatorOrdered, verb, service, name(instance) if instance else "", confirmed)

    def start(self, host: str, takeover: bool = False, journal: str = "kept", wait_s: float = 0.0) -> str:
        self.epoch += 1
        self.engine = f"{host}{self.epoch}"
        self.tell(truth.LeaseWritten, self.engine, host, self.epoch)
        self.wait(wait_s)
        self.tell(truth.EngineStarted, self.engine, host, self.epoch, takeover, journal)
        return self.engine

    def end(self, how: str = "crashed") -> None:
        self.tell(truth.EngineEnded, self.engine, how)

    def poll(self, quality: str = "good", times: int = 1, calls: int = 3) -> None:
        for _ in range(times):
            self.wait(POLL_S)
            self.tell(truth.Answered, self.engine, quality, self.at - 0.2, calls)

    def polls_until(self, at: float) -> None:
        while self.at + POLL_S < at:
            self.poll()
        self.at = at

    # -- jobs and agents

    def submit(self, short: str, service: str = "chat", revision: str = "r1") -> None:
        """An engine calls sbatch."""
        self.tell(truth.SubmitCalled, self.engine, token(short, service), 7200.0, revision)

    def accept(
        self, short: str, answered: bool = True, service: str = "chat", engine: str | None = None
    ) -> None:
        by = self.engine if engine is None else engine
        name_ = token(short, service)
        self.tell(truth.JobAccepted, self.next_id, name_, "svc", self.at, answered, by)
        self.jobs[short] = truth.JobChanged(
            self.at, self.next_id, name_, "svc", "PENDING", "", None, None, 7200.0, 0, self.at, "slurm"
        )
        self.next_id += 1

    def change(self, short: str, **fields: object) -> None:
        self.jobs[short] = replace(self.jobs[short], at=self.at, **fields)  # type: ignore[arg-type]
        self.oracle.see(self.jobs[short])

    def run(self, short: str, lasts_s: float = 7200.0, node: str = "gpu01") -> None:
        """It starts, and its agent with it."""
        self.change(short, state="RUNNING", node=node, start=self.at, end=self.at + lasts_s, cause="slurm")
        self.agent(short, "starting")

    def agent(self, short: str, state: str) -> None:
        job = self.jobs[short]
        service = job.name.split(".")[3]
        self.tell(truth.AgentChanged, job.name[5:], job.restarts, service, job.job_id, state)

    def reach(self, short: str, reachable: bool) -> None:
        job = self.jobs[short]
        self.tell(truth.AgentReachable, job.name[5:], job.restarts, reachable)

    def requeue(self, short: str) -> None:
        self.agent(short, "gone")
        self.change(
            short,
            state="PENDING",
            node="",
            start=None,
            end=None,
            restarts=self.jobs[short].restarts + 1,
            cause="fault",
        )

    def drain(self, short: str, draining: bool = True) -> None:
        job = self.jobs[short]
        self.tell(truth.DrainHeard, job.name[5:], job.restarts, draining)

    def cancel(self, short: str, **fields: object) -> None:
        job = self.jobs[short]
        call = truth.CancelCalled(self.at, self.engine, job.job_id, job.name, "svc")
        self.oracle.see(replace(call, **fields))  # type: ignore[arg-type]

    def finish(self, short: str, state: str = "CANCELLED", cause: str = "engine") -> None:
        if self.jobs[short].state == "RUNNING":
            self.agent(short, "gone")
        self.change(short, state=state, end=self.at, cause=cause)

    def launch(
        self, short: str, service: str = "chat", lasts_s: float = 7200.0, revision: str = "r1"
    ) -> None:
        """All of it at once, up to readiness."""
        self.submit(short, service, revision)
        self.accept(short, service=service)
        self.run(short, lasts_s)
        self.agent(short, "ready")

    def serve(self, short: str, service: str = "chat", lasts_s: float = 7200.0, for_s: float = 120.0) -> None:
        """Launched, and known to the engine for long."""
        self.launch(short, service, lasts_s)
        self.poll(times=int(for_s // POLL_S))

    def forget(self, short: str) -> None:
        """A controller has lost its state."""
        job = self.jobs[short]
        self.tell(truth.JobForgotten, job.job_id, job.name, job.state, True)

    # -- gates and clients

    def routes(self, *shorts: str, host: str = "a", **fields: object) -> None:
        self.tell(truth.RoutesRead, host, tuple(self.route(short, **fields) for short in shorts))

    def route(self, short: str, **fields: object) -> ReadRoute:
        job = self.jobs[short]
        end = job.end or 4e9
        known = ReadRoute(job.name[5:], job.restarts, "chat", end - ADMIT_S, end, False, True)
        return replace(known, **fields)  # type: ignore[arg-type]

    def open(self, short: str, stream: int = 1) -> None:
        job = self.jobs[short]
        self.tell(truth.RequestOpened, stream, "chat", job.name[5:], job.restarts)

    def cut(self, stream: int = 1, cause: str = "engine") -> None:
        self.tell(truth.RequestEnded, stream, "cut", cause)

    def end_of(self, short: str) -> float:
        end = self.jobs[short].end
        assert end is not None
        return end


def name(short: str, service: str = "chat") -> str:
    return f"k7f3.hpc.{service}.{short}"


def token(short: str, service: str = "chat") -> str:
    return f"saia.{name(short, service)}"


def wants(**fields: object) -> Wish:
    return replace(CHAT, **fields)  # type: ignore[arg-type]


def test_a_whole_life_with_its_hand_over_breaks_nothing() -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("two")
    story.poll()
    story.routes("one", "two")
    story.open("one")
    story.drain("one")
    story.wait(1)
    story.routes("one", "two", draining=True)
    story.wait(5)
    story.tell(truth.RequestEnded, 1, "done", "")
    story.cancel("one")
    story.finish("one")
    story.routes("two")
    story.poll(times=20)
    assert story.broken() == set()


# ---------------------------------------------------------------- 1: not more than wanted


def test_1_a_second_job_where_one_is_wanted() -> None:
    story = Story()
    story.serve("one")
    story.submit("two")
    assert story.broken() == {1}


def test_1_a_replacement_before_any_lead_can_ask_for_it() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - EARLIEST_S - 5)
    story.submit("two")
    assert story.broken() == {1}


def test_1_a_replacement_when_the_longest_lead_asks_for_it() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - EARLIEST_S + 1)
    story.submit("two")
    assert story.broken() == set()


def test_1_a_second_replacement() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.poll()
    story.submit("three")
    assert story.broken() == {1}


def test_1_a_job_that_ended_unseen_may_be_replaced_and_so_may_one_that_drains() -> None:
    story = Story()
    story.serve("one")
    story.drain("one")
    story.launch("two")
    story.finish("two", "NODE_FAIL", "fault")
    story.wait(40)
    story.poll()
    story.submit("three")
    assert story.broken() - {11} == set()


def test_1_two_jobs_of_one_launch() -> None:
    story = Story()
    story.serve("one")
    story.accept("one")
    assert story.broken() == {1}


@pytest.mark.parametrize(("surge", "found"), [(0, {1}), (1, set())])
def test_1_a_rollout_may_run_max_surge_more(surge: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.wish(wants(revision="r2", max_surge=surge))
    story.poll(times=5)
    story.submit("two", revision="r2")
    assert story.broken() == found


@pytest.mark.parametrize(("polls", "found"), [(8, set()), (40, {1})])
def test_1_a_surplus_goes(polls: int, found: set[int]) -> None:
    story = Story(wants(replicas=2))
    story.serve("one")
    story.serve("two")
    story.wish(wants(replicas=1))
    story.poll(times=polls)
    assert story.broken() == found


# ---------------------------------------------------------------- 2: only ours


def test_2_a_cancel_of_a_job_that_is_not_ours() -> None:
    story = Story()
    story.serve("one")
    story.drain("one")
    story.cancel("one", name="train")
    assert story.broken() - {11} == {2}


def test_2_a_cancel_of_another_installations_job() -> None:
    story = Story()
    story.serve("one")
    story.cancel("one", name="saia.other.hpc.chat.one")
    assert story.broken() == {2}


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (3, {2})])
def test_2_a_cancel_of_an_id_that_somebody_else_has_now(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.forget("one")
    story.agent("one", "gone")
    story.tell(truth.JobAccepted, story.jobs["one"].job_id, "train", "eve", story.at)
    story.poll(times=polls)
    story.cancel("one")
    assert story.broken() == found


# ---------------------------------------------------------------- 3 and 4: intents and unknown submits


@pytest.mark.parametrize(("waits", "found"), [(False, {3}), (True, set())])
def test_3_a_submit_that_was_under_way_at_a_crash_is_repeated_only_once_it_is_proven(
    waits: bool, found: set[int]
) -> None:
    story = Story()
    story.submit("one")
    story.end()
    story.start("a")
    story.poll(times=3 if waits else 1)
    story.submit("two")
    assert story.broken() == found


def test_3_a_token_is_used_once() -> None:
    story = Story()
    story.submit("one")
    story.submit("one")
    assert 3 in story.broken()


@pytest.mark.parametrize(("polls", "found"), [(1, {4}), (2, {4}), (3, set())])
def test_4_an_unknown_submit_is_repeated_after_two_answers_far_enough_apart(
    polls: int, found: set[int]
) -> None:
    story = Story()
    story.submit("one")
    story.wait(30)
    story.tell(truth.SubmitRefused, story.engine, token("one"), False)
    story.poll(times=polls)
    story.submit("two")
    assert story.broken() == found


def test_4_an_unknown_submit_that_ran_is_not_repeated() -> None:
    story = Story()
    story.submit("one")
    story.accept("one", answered=False)
    story.poll(times=5)
    story.submit("two")
    assert story.broken() == {4}


# ---------------------------------------------------------------- 5, 6 and 7: bad answers and the freeze


@pytest.mark.parametrize(
    ("quality", "found"), [("young", {5}), ("failed", {6}), ("truncated", {6}), ("good", set())]
)
def test_5_and_6_no_launch_follows_from_a_bad_answer(quality: str, found: set[int]) -> None:
    story = Story()
    story.poll(quality)
    story.submit("one")
    assert story.broken() == found


@pytest.mark.parametrize(("quality", "found"), [("late", {6}), ("good", set())])
def test_6_no_cancel_follows_from_a_bad_answer(quality: str, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.poll(quality)
    story.cancel("one")
    assert story.broken() == found


def a_fleet_of_three() -> Story:
    story = Story(wants(replicas=3))
    for short in ("one", "two", "three"):
        story.serve(short, for_s=30)
    story.order("drain", "three")
    story.drain("three")
    story.poll()
    return story


def test_7_no_cancel_while_half_of_the_jobs_are_gone_at_once() -> None:
    story = a_fleet_of_three()
    story.poll("empty")
    story.cancel("three")
    assert story.broken() == {7}


def test_7_no_resubmit_while_half_of_the_jobs_are_gone_at_once() -> None:
    story = a_fleet_of_three()
    for short in ("one", "two"):
        story.forget(short)
    story.poll(times=4)
    story.submit("four")
    assert 7 in story.broken()


def test_7_one_job_gone_is_no_freeze_and_good_answers_end_it() -> None:
    story = a_fleet_of_three()
    story.forget("one")
    story.poll()
    story.cancel("three")
    story.poll("empty")
    story.poll()
    story.cancel("three")
    assert story.broken() == set()


def test_7_an_operators_word_ends_it_for_all_that_was_gone() -> None:
    story = a_fleet_of_three()
    for short in ("one", "two"):
        story.forget(short)
    story.poll()
    story.order("unfreeze")
    story.poll()
    story.cancel("three")
    assert story.broken() == set()


# ---------------------------------------------------------------- 8 and 9: generations and readiness


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (2, {8})])
def test_8_a_route_of_the_generation_before(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.requeue("one")
    story.poll(times=polls)
    story.routes("one", generation=0)
    assert story.broken() == found


def test_8_a_drain_of_the_generation_before_allows_no_cancel() -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.requeue("one")
    story.run("one")
    story.agent("one", "ready")
    story.poll(times=12)
    story.cancel("one")
    assert story.broken() == {8}


@pytest.mark.parametrize(("valid", "found"), [(True, set()), (False, {9})])
def test_9_a_route_with_a_wrong_secret(valid: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one", secret_valid=valid)
    assert story.broken() == found


def test_9_a_route_to_one_that_has_never_been_ready() -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.poll()
    story.routes("one")
    assert story.broken() == {9}


@pytest.mark.parametrize(("seconds", "found"), [(30, set()), (150, {9})])
def test_9_who_does_not_serve_leaves_the_routes(seconds: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.agent("one", "unready")
    story.poll(times=seconds // 15)
    assert story.broken() == found


def test_9_while_no_engine_runs_the_routes_stay() -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.end()
    story.agent("one", "unready")
    story.wait(500)
    assert story.broken() == set()


# ---------------------------------------------------------------- 10, 11, 12: drains and streams


@pytest.mark.parametrize(("others_ready", "found"), [(True, set()), (False, {10})])
def test_10_no_drain_below_min_available(others_ready: bool, found: set[int]) -> None:
    story = Story(wants(replicas=2, min_available=1))
    story.serve("one")
    story.serve("two")
    if not others_ready:
        story.agent("two", "unready")
        story.poll(times=6)
    story.wish(wants(replicas=1, min_available=1))
    story.poll(times=2)
    story.drain("one")
    assert story.broken() == found


def test_10_an_operator_may_undercut_it() -> None:
    story = Story(wants(min_available=1))
    story.serve("one")
    story.order("drain", "one", confirmed=True)
    story.drain("one")
    assert story.broken() == set()


@pytest.mark.parametrize(("ready_for", "found"), [(4, {11}), (12, set())])
def test_11_the_old_one_drains_once_the_new_one_was_ready_for_min_ready(
    ready_for: int, found: set[int]
) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("two")
    story.wait(ready_for)
    story.drain("one")
    assert story.broken() == found


@pytest.mark.parametrize(("early_s", "found"), [(20, {11}), (-1, set())])
def test_11_without_a_replacement_it_serves_until_admit_until(early_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.polls_until(story.end_of("one") - ADMIT_S - early_s)
    story.drain("one")
    assert story.broken() == found


def test_11_one_replacement_is_good_for_one_drain() -> None:
    story = Story(wants(replicas=2))
    story.serve("one", for_s=15)
    story.serve("two")
    story.polls_until(story.end_of("one") - LATEST_S + 20)
    story.launch("three")
    story.poll()
    story.submit("four")
    story.accept("four")
    story.poll()
    story.drain("one")
    story.drain("two")
    assert story.broken() == {11}


@pytest.mark.parametrize(("early_s", "found"), [(10, {12}), (0, set())])
def test_12_in_a_hand_over_no_stream_is_cut_before_last_cut(early_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("two")
    story.poll(times=10)
    story.open("one")
    story.drain("one")
    story.polls_until(story.end_of("one") - 30 - early_s)
    story.cancel("one")
    story.cut()
    assert story.broken() == found


@pytest.mark.parametrize(("after_s", "found"), [(250, {12}), (300, set())])
def test_12_by_order_streams_have_drain_deadline(after_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.open("one")
    story.order("drain", "one")
    story.drain("one")
    drained_at = story.at
    story.launch("two")
    story.polls_until(drained_at + after_s)
    story.cancel("one")
    story.cut()
    assert story.broken() == found


def test_12_a_cancel_without_a_drain() -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.cancel("one")
    assert story.broken() == {12}


def test_12_who_could_not_hear_needs_no_drain() -> None:
    story = Story()
    story.serve("one")
    story.reach("one", False)
    story.poll(times=10)
    story.cancel("one")
    assert story.broken() == set()


@pytest.mark.parametrize(("late_s", "found"), [(1, set()), (10, {12})])
def test_12_no_request_after_admit_until(late_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.polls_until(story.end_of("one") - ADMIT_S)
    story.wait(late_s)
    story.open("one")
    assert story.broken() == found


# ---------------------------------------------------------------- 13 to 16


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (3, {13})])
def test_13_a_changed_limit_counts_within_a_poll(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    old = story.route("one")
    story.change("one", end=story.end_of("one") - 3000, cause="foreign")
    story.poll(times=polls)
    story.tell(truth.RoutesRead, "a", (old,))
    assert story.broken() == found


@pytest.mark.parametrize(("ends", "found"), [(True, set()), (False, {13})])
def test_13_an_engine_that_acts_asks_on(ends: bool, found: set[int]) -> None:
    story = Story(wants(replicas=0))
    if ends:
        story.end()
    story.wait(400)
    assert story.broken() == found


@pytest.mark.parametrize(("asks", "found"), [(True, set()), (False, {13})])
def test_13_an_engine_that_starts_asks(asks: bool, found: set[int]) -> None:
    story = Story(wants(replicas=0))
    story.end()
    story.start("a")
    if asks:
        story.poll()
        story.wait(280)
    else:
        story.wait(310)
    assert story.broken() == found


def test_14_a_jump_of_the_clock_submits_nothing() -> None:
    story = Story()
    story.serve("one")
    story.tell(truth.FaultBegan, "clock-jump", "a")
    story.wait(5)
    story.submit("two")
    assert story.broken() == {14}


def test_14_what_is_due_anyway_is_due_after_a_jump_too() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.tell(truth.FaultBegan, "clock-jump", "a")
    story.submit("two")
    assert story.broken() == set()


@pytest.mark.parametrize(("away_s", "found"), [(None, {15}), (12, set())])
def test_15_one_failed_probe_takes_no_route_away(away_s: float | None, found: set[int]) -> None:
    story = Story()
    story.serve("one", for_s=300)
    story.routes("one")
    if away_s is not None:
        story.reach("one", False)
        story.wait(away_s)
    story.routes()
    story.wait(30)
    assert story.broken() == found


@pytest.mark.parametrize(("ill_s", "found"), [(60, {15}), (190, set())])
def test_15_who_does_not_serve_has_its_deadline(ill_s: float, found: set[int]) -> None:
    story = Story(wants(unready_deadline_s=180.0, liveness=False))
    story.serve("one")
    story.agent("one", "unready")
    story.polls_until(story.at + ill_s)
    story.drain("one")
    assert story.broken() == found


@pytest.mark.parametrize(("apart_s", "found"), [(120, {15}), (310, set())])
def test_15_one_kill_in_a_window(apart_s: float, found: set[int]) -> None:
    story = Story(wants(replicas=3))
    for short in ("one", "two", "three"):
        story.launch(short)
    story.poll(times=8)
    for short in ("one", "two"):
        story.agent(short, "unready")
    story.tell(truth.AlarmsShown, story.engine, (("state-overdue", name("two")),))
    story.polls_until(story.at + 200)
    story.drain("one")
    story.launch("four")
    story.polls_until(story.at + apart_s)
    story.drain("two")
    assert story.broken() == found


def test_16_submits_per_hour_are_bounded() -> None:
    story = Story(wants(replicas=9), per_hour=3)
    for number in range(4):
        story.launch(f"i{number}")
    assert story.broken() == {16}


def test_16_the_bound_is_of_an_hour() -> None:
    story = Story(wants(replicas=9), per_hour=3)
    for number in range(3):
        story.launch(f"i{number}")
    story.poll(times=240)
    story.launch("late")
    assert story.broken() - {22} == set()


def test_16_one_service_has_half_of_the_bound() -> None:
    story = Story(wants(replicas=9), wants(name="code"), per_hour=4)
    for number in range(3):
        story.launch(f"i{number}")
    assert story.broken() == {16}


@pytest.mark.parametrize(("wait_s", "found"), [(5, {16}), (10, set())])
def test_16_a_refused_submit_is_repeated_after_a_while(wait_s: float, found: set[int]) -> None:
    story = Story()
    story.submit("one")
    story.tell(truth.SubmitRefused, story.engine, token("one"))
    story.wait(wait_s)
    story.submit("two")
    assert story.broken() == found


@pytest.mark.parametrize(("wait_s", "found"), [(15, {16}), (21, set())])
def test_16_the_wait_doubles_with_each_failure(wait_s: float, found: set[int]) -> None:
    story = Story()
    for short in ("one", "two"):
        story.wait(90)
        story.submit(short)
        story.tell(truth.SubmitRefused, story.engine, token(short))
    story.wait(wait_s)
    story.submit("three")
    assert story.broken() == found


def test_16_a_job_that_crashes_before_it_serves_is_a_failure() -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.wait(20)
    story.finish("one", "FAILED", "service")
    story.wait(5)
    story.tell(truth.Answered, story.engine, "good", story.at, 3)
    story.submit("two")
    assert story.broken() == {16}


# ---------------------------------------------------------------- 17, 18, 19, 21


@pytest.mark.parametrize(("calls", "found"), [(4, set()), (9, {17})])
def test_17_a_tick_is_a_fixed_number_of_calls(calls: int, found: set[int]) -> None:
    story = Story()
    story.poll(calls=calls)
    assert story.broken() == found


@pytest.mark.parametrize(("asks", "found"), [(1, set()), (2, {17})])
def test_17_one_observation_in_each_tick(asks: int, found: set[int]) -> None:
    story = Story()
    for _ in range(asks):
        story.wait(5)
        story.tell(truth.Answered, story.engine, "good", story.at - 1, 3)
    assert story.broken() == found


@pytest.mark.parametrize(("seconds", "found"), [(50, set()), (70, {18})])
def test_18_who_lost_the_lease_stops_within_the_delay_of_the_shared_file_system(
    seconds: int, found: set[int]
) -> None:
    story = Story()
    story.tell(truth.LeaseWritten, "b2", "b", 2)
    story.wait(seconds)
    story.submit("one")
    assert story.broken() == found


@pytest.mark.parametrize(("wait_s", "found"), [(40, {18}), (90, set())])
def test_18_who_takes_over_waits(wait_s: float, found: set[int]) -> None:
    story = Story()
    story.end("host-lost")
    story.start("b", takeover=True, journal="new", wait_s=wait_s)
    story.poll()
    story.submit("one")
    assert story.broken() == (found if wait_s + POLL_S < 90 else set())


def test_18_two_engines_never_take_turns() -> None:
    story = Story(wants(replicas=2))
    first = story.engine
    story.start("b", takeover=True, wait_s=90)
    story.poll()
    story.submit("one")
    story.engine = first
    story.submit("two")
    assert 18 in story.broken()


def test_18_no_act_after_the_end() -> None:
    story = Story()
    story.end()
    story.submit("one")
    assert 18 in story.broken()


@pytest.mark.parametrize(("runs", "found"), [(True, set()), (False, {18})])
def test_18_a_crash_leaves_no_lock(runs: bool, found: set[int]) -> None:
    story = Story()
    if not runs:
        story.end()
    story.tell(truth.EngineRefused, "a9", "a", "another engine runs on this host")
    assert story.broken() == found


def test_19_no_act_after_the_journal_has_failed() -> None:
    story = Story()
    story.tell(truth.JournalRefused, story.engine, "disk full")
    story.submit("one")
    assert story.broken() == {19}


@pytest.mark.parametrize(("serves", "found"), [(True, {19}), (False, set())])
def test_19_its_routes_are_kept(serves: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.tell(truth.JournalRefused, story.engine, "disk full")
    if not serves:
        story.agent("one", "unready")
    story.routes()
    assert story.broken() == found


def test_21_only_engines_submit_and_cancel() -> None:
    story = Story()
    story.serve("one")
    story.cancel("one", engine="gate")
    assert 21 in story.broken()


# ---------------------------------------------------------------- 20, 22, 23, 24


@pytest.mark.parametrize(("minutes", "found"), [(6, set()), (20, {20})])
def test_20_nothing_is_left_of_a_removed_service(minutes: int, found: set[int]) -> None:
    story = Story(CHAT, wants(name="code"))
    story.serve("one")
    story.serve("two", "code")
    story.wish(wants(name="code"))
    story.drain("one")
    story.poll(times=minutes * 4)
    assert story.broken() - {24} == found


def test_20_a_cancel_that_is_lost_is_nobodys_fault() -> None:
    story = Story(CHAT, wants(name="code"))
    story.serve("one")
    story.serve("two", "code")
    story.wish(wants(name="code"))
    story.drain("one")
    for _ in range(40):
        story.poll(times=2)
        story.cancel("one")
    assert story.broken() == set()


@pytest.mark.parametrize(("minutes", "found"), [(7, set()), (20, {22})])
def test_22_what_is_wanted_comes_about_once_faults_stop(minutes: int, found: set[int]) -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.tell(truth.FaultsStopped)
    story.tell(truth.RoomPromised, 60.0, 120.0)
    story.poll(times=minutes * 4)
    assert story.broken() == found


def test_22_it_has_come_about() -> None:
    story = Story()
    story.tell(truth.FaultsStopped)
    story.tell(truth.RoomPromised, 60.0, 120.0)
    story.serve("one")
    story.routes("one")
    story.poll(times=100)
    assert story.broken() == set()


@pytest.mark.parametrize(("polls", "found"), [(8, set()), (20, {22})])
def test_22_an_empty_slot_is_filled(polls: int, found: set[int]) -> None:
    story = Story()
    story.poll(times=polls)
    assert story.broken() == found


@pytest.mark.parametrize(("submits", "found"), [(True, set()), (False, {23})])
def test_23_a_replacement_is_submitted_in_time(submits: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S + 20)
    if submits:
        story.submit("two")
        story.accept("two")
    story.poll(times=20)
    assert story.broken() == found


def test_23_a_back_off_excuses() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.tell(truth.SubmitRefused, story.engine, token("two"))
    story.poll(times=15)
    assert story.broken() == set()


@pytest.mark.parametrize(("alarmed", "found"), [(True, set()), (False, {24})])
def test_24_a_start_that_does_not_end_raises_an_alarm(alarmed: bool, found: set[int]) -> None:
    story = Story(wants(startup_deadline_s=600.0))
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.poll(times=42)
    if alarmed:
        story.tell(truth.AlarmsShown, story.engine, (("state-overdue", name("one")),))
    story.poll(times=40)
    assert story.broken() == found


@pytest.mark.parametrize(("cancels", "found"), [(True, set()), (False, {24})])
def test_24_a_drain_by_order_comes_to_its_end(cancels: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.serve("two")
    story.poll(times=20)
    if cancels:
        story.cancel("one")
    story.poll(times=40)
    assert story.broken() == found


@pytest.mark.parametrize(("back", "found"), [(True, set()), (False, {0})])
def test_a_world_without_an_engine_shows_nothing(back: bool, found: set[int]) -> None:
    story = Story(wants(replicas=0))
    story.end()
    story.wait(3000)
    if back:
        story.start("a")
        story.poll(times=200)
    else:
        story.wait(3000)
    assert story.broken() == found


@pytest.mark.parametrize(("waits_s", "found"), [(3500.0, set()), (3700.0, {0})])
def test_a_world_in_which_no_engine_ever_starts_shows_nothing(waits_s: float, found: set[int]) -> None:
    oracle = Oracle()
    oracle.see(BEGAN)
    oracle.finish(BEGAN.at + waits_s)
    assert {violation.promise for violation in oracle.violations} == found
