"""What the journal tells of an instance or a service, and how it reads in a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine import explain, story
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.model import Instance, LaunchSpec, Override, Pin, Revision, Service, State
from saia_engine.revision_files import RevisionFiles
from saia_engine.store import Store

OLD = LaunchSpec(command=("serve",), environment=(("TOKEN", "hunter2"),), gres="gpu:1")
NEW = replace(OLD, command=("serve", "--new"), gres="gpu:2")
SECRET = replace(OLD, environment=(("TOKEN", "hunter3"),))
CHAT = Service("chat", NEW, replicas=2)
AT = 1_700_000_000.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state.db")


@pytest.fixture
def files(tmp_path: Path) -> RevisionFiles:
    return RevisionFiles(tmp_path / "revisions")


def instance(nonce: str, state: State, **more: object) -> Instance:
    record = Instance(
        f"k.hpc.chat.{nonce}", "chat", OLD.redacted(), OLD.revision, AT, state=state, state_since=AT
    )
    return replace(record, **more)


def known(store: Store, files: RevisionFiles) -> None:
    files.save("chat", OLD)
    store.save_revision(Revision("chat", OLD.revision, OLD, AT, good_at=AT + 60))
    store.save_revision(Revision("chat", SECRET.revision, SECRET, AT + 100, failed_at=AT + 200, failure="x"))
    store.save_revision(Revision("chat", NEW.revision, NEW, AT + 300))
    store.save(instance("aa01", State.READY, node="gpu01", job_id=7))
    store.save(instance("aa00", State.FAILED, ended_at=AT + 5, outcome="it broke"))


def test_an_unknown_one_has_no_story(store: Store, files: RevisionFiles, tmp_path: Path) -> None:
    assert story.of_instance(store, "k.hpc.chat.none", InstanceDirs(tmp_path)) is None
    assert story.of_service(store, "chat", None, files) is None


def test_an_instances_story_outlives_its_record(store: Store, tmp_path: Path) -> None:
    store.save(instance("aa00", State.STOPPED, ended_at=AT + 5))
    store.record(AT, "launch", "info", "k.hpc.chat.aa00", "too-few: t", detail={"rule": "too-few"})
    store.record(AT, "launch", "info", "k.hpc.chat.aa01", "too-few: t")
    told = story.of_instance(store, "k.hpc.chat.aa00", InstanceDirs(tmp_path))
    assert told is not None
    assert told["instance"]["ended_at"] == AT + 5
    assert told["log"] == str(tmp_path / "k.hpc.chat.aa00" / "output.log")
    assert [(e["code"], e["detail"]) for e in told["events"]] == [("launch", {"rule": "too-few"})]
    store.forget_ended(before=AT + 10)
    later = story.of_instance(store, "k.hpc.chat.aa00", InstanceDirs(tmp_path))
    assert later == {"instance": None, "log": "", "events": told["events"]}
    assert explain.instance_lines(later)[0] == "record    none any more: only its events are left"


def test_a_rollback_counts_only_for_the_revision_that_it_replaced(store: Store, files: RevisionFiles) -> None:
    known(store, files)
    store.set_pin(Pin("chat", OLD.revision, NEW.revision, "its rollout failed", AT + 400))
    told = story.revisions(store, "chat", CHAT, files)
    assert (told["asked_for"], told["configured"]) == (OLD.revision, NEW.revision)
    newer = replace(CHAT, launch=SECRET)
    told = story.revisions(store, "chat", newer, files)
    assert (told["asked_for"], told["pin"]) == (SECRET.revision, None)


def test_no_secret_is_told(store: Store, files: RevisionFiles) -> None:
    known(store, files)
    assert "hunter" not in str(story.of_service(store, "chat", CHAT, files))


def test_a_service_in_words(store: Store, files: RevisionFiles) -> None:
    known(store, files)
    store.set_pin(Pin("chat", OLD.revision, NEW.revision, "its rollout failed", AT + 400))
    store.set_override(Override("chat", 3, 0, AT + 10))
    store.record(AT + 10, "scale", "info", "chat", "2 -> 3", 0)
    told = story.of_service(store, "chat", CHAT, files)
    assert told is not None
    row = {"status": "degraded", "lead_s": 1500.0, "lead_because": "queue 20m", "rollout": "1 of 3"}
    lines = explain.service_lines({**told, "row": row})
    assert all(len(line) <= explain.WIDTH for line in lines)
    old, new, secret = OLD.revision, NEW.revision, SECRET.revision
    assert lines == [
        "service   chat, 3 replicas, degraded, by root (uid 0) since 2023-11-14 22:13:30",
        f"runs      revision {old} instead of {new} of the file, rolled back",
        "          by the engine on 2023-11-14 22:20:00: its rollout failed",
        "lead      25m: queue 20m",
        "rollout   1 of 3",
        "",
        "revisions, the newest first:",
        f"  {new}  asked for 2023-11-14 22:18:20, the file's",
        f"                differs from {old} in command, gres",
        f"  {secret}  asked for 2023-11-14 22:15:00, failed 2023-11-14 22:16:40 (x),",
        "                its launch spec is lost, so no way back to it",
        f"                differs from {old} in the values of its environment",
        f"  {old}  asked for 2023-11-14 22:13:20, good since 2023-11-14 22:14:20,",
        "                run by 1 now",
        "",
        "instances, the newest last:",
        "  chat.aa01  ready since 2023-11-14 22:13:20, job 7 on gpu01, revision",
        f"    {old}",
        f"  chat.aa00  failed since 2023-11-14 22:13:25, revision {old}: it broke",
        "",
        "2023-11-14 (UTC)",
        "22:13:30  scale by root (uid 0): 2 -> 3",
    ]


def test_a_removed_service_still_has_a_story(store: Store, files: RevisionFiles) -> None:
    known(store, files)
    told = story.of_service(store, "chat", None, files)
    assert told is not None
    assert explain.service_lines(told)[:2] == [
        "service   chat, not in the configuration any more",
        "runs      nothing is asked for",
    ]


def test_hostile_text_stays_text() -> None:
    event = {
        "at": AT,
        "code": "x\x1b[2J",
        "severity": "info",
        "text": "a\nb " + "y" * 300,
        "detail": {"inputs": {"\u202ename": "\x07"}, "refused": [["\x1b", "c\nd"]]},
    }
    lines = explain.event_lines([event])
    assert all(line.isprintable() and len(line) <= explain.WIDTH for line in lines)
    assert lines[1].startswith(r"22:13:20  x\x1b[2J: a\nb")


def test_inputs_are_shown_as_what_they_are() -> None:
    inputs = {
        "until": AT,
        "lead": 90.0,
        "wait_s": 0.5,
        "have": 2,
        "huge": 1e300,
        "priority": 4e10,
        "end": None,
    }
    [line] = explain.why_lines({"inputs": inputs}, "  ", "2023-11-14")[:1]
    assert line == "  inputs: until 22:13:20, lead 1m 30s, wait 500ms, have 2, huge 1e+300, priority"


def test_midnight_begins_a_new_day() -> None:
    events = [{"at": AT + hours * 3600, "code": "c", "severity": "info", "text": "t"} for hours in (0, 1, 2)]
    assert [line for line in explain.event_lines(events) if line.startswith("2023")] == [
        "2023-11-14 (UTC)",
        "2023-11-15 (UTC)",
    ]
