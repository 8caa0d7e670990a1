"""What the engine reads back of a directory in which a service can write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saia_engine import agent
from saia_engine.instance_dirs import TAIL_BYTES, InstanceDirs
from saia_engine.model import Instance, LaunchSpec, ProbeSpec

INSTANCE = "k7f3.hpc.chat.ab12"
COMPLETION = ProbeSpec("completion", "/v1/chat/completions", "llama", 30.0, 20.0, 3)


@pytest.fixture
def dirs(tmp_path: Path) -> InstanceDirs:
    (tmp_path / INSTANCE).mkdir()
    return InstanceDirs(tmp_path)


@pytest.mark.parametrize("liveness", [None, COMPLETION])
def test_the_agent_understands_what_it_is_left(dirs: InstanceDirs, liveness: ProbeSpec | None) -> None:
    spec = LaunchSpec(
        command=("serve", "{port}"),
        environment=(("A", "1"),),
        readiness_path="/ready",
        readiness=None if liveness else COMPLETION,
        liveness=liveness,
    )
    instance = Instance(INSTANCE, "chat", spec.redacted(), spec.revision, created_at=1.0)
    dirs.prepare(instance, spec)
    launch = agent.read_launch(dirs.path(INSTANCE))
    assert (launch.command, launch.environment) == (["serve", "{port}"], {"A": "1"})
    for told, meant in ((launch.readiness, spec.readiness_probe), (launch.liveness, liveness)):
        assert told == (meant and agent.Probe(**{n: getattr(meant, n) for n in agent.Probe._fields}))
    assert dirs.recorded(INSTANCE) == instance


def test_the_tail_is_the_last_lines_as_they_are(dirs: InstanceDirs) -> None:
    lines = [f"line {number} \x1b[31m" for number in range(30)]
    dirs.log(INSTANCE).write_text("\n".join(lines) + "\n\n")
    assert dirs.log_tail(INSTANCE).split("\n") == lines[-20:]
    assert dirs.log_tail(INSTANCE, 2).split("\n") == lines[-2:]


def test_a_short_log_is_told_whole_and_one_that_is_not_text_does_no_harm(dirs: InstanceDirs) -> None:
    dirs.log(INSTANCE).write_bytes(b"one\r\n\xff two")
    assert dirs.log_tail(INSTANCE) == "one\r\n\ufffd two"


def test_of_a_huge_log_only_the_end_is_read(dirs: InstanceDirs) -> None:
    with dirs.log(INSTANCE).open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"x" * TAIL_BYTES + b"\nthe end\n")
    first, last = dirs.log_tail(INSTANCE).split("\n")
    assert (len(first), last) == (TAIL_BYTES - len("\nthe end\n"), "the end")


@pytest.mark.parametrize("kind", ["missing", "pipe", "directory", "device", "dangling", "loop"])
def test_what_is_no_log_has_no_tail_and_holds_nobody_up(dirs: InstanceDirs, kind: str) -> None:
    log = dirs.log(INSTANCE)
    match kind:
        case "pipe":
            os.mkfifo(log)
        case "directory":
            log.mkdir()
        case "device":
            log.symlink_to("/dev/zero")
        case "dangling":
            log.symlink_to("nowhere")
        case "loop":
            log.symlink_to(log)
    assert dirs.log_tail(INSTANCE) == ""


@pytest.mark.parametrize(
    ("files", "unfinished"),
    [
        ([], True),
        (["endpoint.0.json"], True),
        (["endpoint.0.json", "exit.0.json"], False),
        (["exit.0.json"], False),
        (["endpoint.0.json", "exit.0.json", "endpoint.1.json"], True),
        (["endpoint.0.json", "exit.0.json", "endpoint.1.json", "exit.1.json"], False),
        (["endpoint.x.json", "exit.json"], True),
    ],
)
def test_unfinished_is_whose_last_run_has_told_no_exit(
    dirs: InstanceDirs, files: list[str], unfinished: bool
) -> None:
    for name in files:
        (dirs.path(INSTANCE) / name).touch()
    (dirs.root / "a file").touch()
    assert dirs.unfinished() == ([INSTANCE] if unfinished else [])


def test_a_directory_that_cannot_be_read_counts_as_unfinished_and_holds_up_nobody(
    dirs: InstanceDirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dirs.root / "other").mkdir()
    (dirs.root / "other" / "exit.0.json").touch()
    listed = Path.iterdir

    def iterdir(self: Path):
        if self == dirs.path(INSTANCE):
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert dirs.unfinished() == [INSTANCE]
    assert dirs.newest_generation(INSTANCE) is None
