import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from saia_engine.edge import logs


@pytest.fixture(autouse=True)
def configuration_of_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_events_are_json_lines_whose_values_are_clean(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    log = logs.get_logger("reconciler")
    logs.set_up("info", file)
    log.info(
        "job seen", name="x\n99|RUNNING\x1b[31m", job=7, seconds=1.5, nested={"k\n": [b"\xff", None, True]}
    )
    log.debug("not shown")
    (line,) = file.read_text(encoding="utf-8").splitlines()
    event = json.loads(line)
    assert event["part"] == "reconciler"
    assert event["level"] == "info"
    assert event["event"] == "job seen"
    assert event["name"] == "x\\n99|RUNNING\\x1b[31m"
    assert (event["job"], event["seconds"]) == (7, 1.5)
    assert event["nested"] == {"k\\n": ["\\xff", None, True]}
    assert file.stat().st_mode & 0o777 & ~0o640 == 0


def test_an_exception_stays_one_line(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    logs.set_up("info", file)
    try:
        raise ValueError("bad\x1bthing")
    except ValueError:
        logs.get_logger("x").exception("failed")
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert "ValueError: bad\\x1bthing" in json.loads(line)["exception"]


def test_what_json_cannot_hold_is_shown_as_text(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    logs.set_up("info", file)
    logs.get_logger("x").info("odd", path=tmp_path, huge=10**30, not_a_number=float("nan"), half="\ud800")
    event = json.loads(file.read_text(encoding="utf-8"))
    assert event["path"] == str(tmp_path)
    assert event["half"] == "\\ud800"


def test_a_terminal_gets_key_and_value() -> None:
    reader, writer = pty.openpty()
    try:
        logs.set_up("info", Path(os.ttyname(writer)))
        logs.get_logger("x").info("job seen", job=7, name="two words", quote='a"b')
        line = os.read(reader, 1000).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert line.rstrip().endswith('info job seen part=x job=7 name="two words" quote="a\\"b"')


def test_a_full_disk_does_not_stop_who_logs() -> None:
    logs.set_up("info", Path("/dev/full"))
    logs.get_logger("x").info("lost")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        logs.set_up("loud")
    with pytest.raises(OSError, match="No such file"):
        logs.set_up("info", tmp_path / "missing" / "engine.log")


def test_a_file_is_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LARGEST_FILE", 2000)
    file = tmp_path / "engine.log"
    logs.set_up("info", file)
    log = logs.get_logger("test")
    for number in range(200):
        log.info("event", number=number)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"engine.log", *(f"engine.log.{n}" for n in range(1, logs.OLD_FILES + 1))}
    kept = [file.with_name(f"engine.log.{n}") for n in range(logs.OLD_FILES, 0, -1)] + [file]
    numbers = [json.loads(line)["number"] for path in kept for line in path.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 200))


def test_who_is_silenced_speaks_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up()
    with logs.silenced():
        logs.get_logger("engine").critical("unheard")
    logs.get_logger("engine").critical("heard")
    written = capfd.readouterr()
    assert "unheard" not in written.out + written.err
    assert "heard" in written.out + written.err
