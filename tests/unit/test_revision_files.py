"""Whole launch specs for rollbacks: only their owner reads them, and a damaged one is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from saia_engine.model import LaunchSpec
from saia_engine.revision_files import RevisionFiles

SPEC = LaunchSpec(command=("serve",), environment=(("TOKEN", "hunter2"),), time_min_s=60)
OTHER = LaunchSpec(command=("serve", "--new"))


@pytest.fixture
def files(tmp_path: Path) -> RevisionFiles:
    return RevisionFiles(tmp_path / "revisions")


def test_a_spec_comes_back_whole(files: RevisionFiles) -> None:
    files.save("chat", SPEC)
    assert RevisionFiles(files.root).load("chat", SPEC.revision) == SPEC
    assert files.load("chat", OTHER.revision) is None
    assert files.load("embed", SPEC.revision) is None


def test_only_its_owner_may_read_it(files: RevisionFiles) -> None:
    files.save("chat", SPEC)
    [path] = files.root.iterdir()
    assert path.name == f"chat.{SPEC.revision}.json"
    assert (files.root.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"command": 3}', b'{"command": ["other"]}', b"\xff"])
def test_a_damaged_file_is_none_and_is_mended_by_a_save(files: RevisionFiles, damage: bytes) -> None:
    files.save("chat", SPEC)
    [path] = files.root.iterdir()
    path.write_bytes(damage)
    assert files.load("chat", SPEC.revision) is None
    assert files.saved() == {}
    files.save("chat", SPEC)
    assert files.load("chat", SPEC.revision) == SPEC


@pytest.mark.parametrize("asked", ["../revisions/chat", "", "x/y", "*", "a" * 300, "\0"])
def test_a_revision_that_is_no_hash_is_none(files: RevisionFiles, asked: str) -> None:
    files.save("chat", SPEC)
    assert files.load("chat", asked) is None
    assert files.load(asked, SPEC.revision) is None


def test_what_is_not_wanted_any_more_goes_and_other_services_stay(files: RevisionFiles) -> None:
    for service in ("chat", "chat-small", "embed"):
        files.save(service, SPEC)
        files.save(service, OTHER)
    files.keep_only("chat", {OTHER.revision})
    assert {service: set(found) for service, found in files.saved().items()} == {
        "chat": {OTHER.revision},
        "chat-small": {SPEC.revision, OTHER.revision},
        "embed": {SPEC.revision, OTHER.revision},
    }


def test_where_nothing_was_saved_there_is_nothing(files: RevisionFiles) -> None:
    assert files.saved() == {}
    files.keep_only("chat", ())
