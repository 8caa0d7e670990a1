"""What engines order of a proxy: whose word counts, what is kept, and what a worker that lags can't undo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from saia_engine.wire.messages import Admin, KeyOrder
from saia_proxy.admin import Orders
from saia_proxy.config import ApiKey

REVOKED = KeyOrder(revoked=True)
ALICE = ApiKey("alice", "sha256:0", ("*",), 4, 60)
BOB = ApiKey("bob", "sha256:1", ("*",))


def orders(directory: Path, *upstreams: str, worker: int = 0) -> Orders:
    return Orders(directory, upstreams or ("a", "b"), worker)


def limited(concurrency: int | None = None, per_minute: int | None = None) -> Admin:
    return Admin(1, keys={"alice": KeyOrder(concurrency=concurrency, per_minute=per_minute)})


def test_without_orders_the_configuration_counts(tmp_path: Path) -> None:
    fresh = orders(tmp_path)
    assert not fresh.maintenance and not fresh.revoked("alice")
    assert (fresh.limits(ALICE), fresh.limits(BOB)) == ((4, 60), (0, 0))
    assert fresh.acknowledged("a") == 0


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ([limited()], (4, 60)),
        ([limited(2)], (2, 60)),
        ([limited(9, 0)], (9, 0)),
        ([limited(0, 0)], (0, 0)),
        ([limited(9, 30), limited(3, 90)], (3, 30)),
        ([limited(0, 0), Admin(1)], (4, 60)),
        ([limited(0, 0), limited(7, 0)], (7, 0)),
    ],
)
def test_an_order_takes_the_place_of_the_configured_limit_and_of_several_the_strictest_counts(
    tmp_path: Path, said: list[Admin], counts: tuple[int, int]
) -> None:
    ours = orders(tmp_path)
    for upstream, order in zip("ab", said, strict=False):
        ours.apply(upstream, order)
    assert ours.limits(ALICE) == counts


def test_a_key_is_revoked_as_long_as_any_upstreams_last_word_says_so(tmp_path: Path) -> None:
    ours = orders(tmp_path)
    ours.apply("a", Admin(5, keys={"alice": REVOKED, "not-yet-there": REVOKED}))
    ours.apply("b", Admin(9))
    assert ours.revoked("alice") and ours.revoked("not-yet-there") and not ours.revoked("bob")
    ours.lost("a")
    assert ours.revoked("alice"), "a leaked key must not work again because a tunnel broke"
    ours.apply("a", Admin(6))
    assert not ours.revoked("alice")


def test_of_maintenance_the_connected_ones_decide_and_alone_the_last_word(tmp_path: Path) -> None:
    ours = orders(tmp_path)
    ours.apply("a", Admin(5, maintenance=True))
    assert ours.maintenance
    ours.apply("b", Admin(1))
    ours.lost("a")
    assert not ours.maintenance
    ours.lost("b")
    assert ours.maintenance


def test_all_of_it_survives_a_restart(tmp_path: Path) -> None:
    order = Admin(5, maintenance=True, keys={"alice": KeyOrder(True, 3, 0)})
    orders(tmp_path).apply("a", order)
    again = orders(tmp_path)
    assert again.maintenance and again.revoked("alice") and again.limits(ALICE) == (3, 0)
    assert (again.acknowledged("a"), again.acknowledged("b")) == (5, 0)
    assert (tmp_path / "admin.json").stat().st_mode & 0o777 == 0o600
    elsewhere = orders(tmp_path, "b")
    assert not elsewhere.revoked("alice"), "an upstream that is not configured any more has no word"


def test_an_older_order_that_comes_late_changes_nothing(tmp_path: Path) -> None:
    ours = orders(tmp_path)
    ours.apply("a", Admin(8, keys={"alice": REVOKED}))
    for late in (Admin(7), Admin(0)):
        ours.apply("a", late)
        assert ours.revoked("alice") and ours.acknowledged("a") == 8
    assert orders(tmp_path).revoked("alice")


def test_a_worker_that_lags_can_not_undo_what_another_has_kept(tmp_path: Path) -> None:
    first, second = orders(tmp_path, worker=0), orders(tmp_path, worker=1)
    first.apply("a", Admin(7))
    first.apply("a", Admin(8, keys={"alice": REVOKED}))
    second.apply("a", Admin(7))
    assert not second.revoked("alice") and second.acknowledged("a") == 7
    for worker in (0, 1):
        again = orders(tmp_path, worker=worker)
        assert again.revoked("alice") and again.acknowledged("a") == 8
        again.apply("a", Admin(7))
        assert again.revoked("alice") and again.acknowledged("a") == 8


def test_what_cannot_be_kept_is_in_force_but_not_acknowledged_until_it_can(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    ours = orders(directory)
    with capture_logs() as logged:
        ours.apply("a", Admin(8, keys={"alice": REVOKED}))
        assert ours.revoked("alice")
        assert ours.acknowledged("a") == ours.acknowledged("a") == 0
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == ["cannot keep orders"]
    directory.mkdir()
    assert ours.acknowledged("a") == 8
    assert orders(directory).revoked("alice")


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}x", b'{"upstreams":{"a":{"revision":-1}}}', b"[]"])
def test_a_file_of_no_use_is_said_and_the_others_count(tmp_path: Path, content: bytes) -> None:
    orders(tmp_path, worker=1).apply("a", Admin(8, keys={"alice": REVOKED}))
    (tmp_path / "admin.json").write_bytes(content)
    with capture_logs() as logged:
        assert orders(tmp_path).revoked("alice")
    assert [entry["path"] for entry in logged] == [str(tmp_path / "admin.json")]


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    before = {"version": 1, "upstreams": {"a": {"type": "admin", "revision": 3, "maintenance": True}}}
    (tmp_path / "admin.json").write_text(json.dumps(before))
    ours = orders(tmp_path)
    assert ours.maintenance and ours.acknowledged("a") == 3
