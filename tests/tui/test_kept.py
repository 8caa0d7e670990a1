"""What is kept in the file survives a new start; a bad file is passed over with a word."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from saia_tui.kept import LARGEST_FILE, Kept, NotKept, kept_file


def test_where_the_file_lies() -> None:
    assert kept_file({"XDG_STATE_HOME": "/var/x"}) == Path("/var/x/saia/tui.json")
    assert kept_file({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/saia/tui.json"
    assert kept_file({}) == Path.home() / ".local/state/saia/tui.json"


def test_a_section_is_there_at_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "saia" / "tui.json"
    assert Kept(file).get("columns") is None
    Kept(file).put("columns", {"jobs": ["JOB", "NAME"]})
    assert Kept(file).get("columns") == {"jobs": ["JOB", "NAME"]}
    assert file.stat().st_mode & 0o777 == 0o600
    Kept(file).put("columns", None)
    assert Kept(file).get("columns") is None
    assert [each.name for each in file.parent.iterdir()] == ["tui.json"]


def test_two_screens_keep_their_sections_beside_each_other(tmp_path: Path) -> None:
    one, two = Kept(tmp_path / "tui.json"), Kept(tmp_path / "tui.json")
    one.put("columns", [1])
    two.put("theme", "light")
    assert Kept(tmp_path / "tui.json").get("columns") == [1]
    assert Kept(tmp_path / "tui.json").get("theme") == "light"


def test_without_a_file_it_is_kept_until_the_end() -> None:
    kept = Kept()
    kept.put("columns", [1])
    assert kept.get("columns") == [1] and kept.fault == ""


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{not json", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[1]", "holds no sections"),
        (b"[" * 100_000, "damaged"),
        (b" " * (LARGEST_FILE + 1), "more than"),
    ],
)
def test_a_bad_file_is_passed_over_and_replaced_at_the_next_word(
    tmp_path: Path, content: bytes, word: str
) -> None:
    file = tmp_path / "tui.json"
    file.write_bytes(content)
    kept = Kept(file)
    assert word in kept.fault and kept.get("columns") is None
    kept.put("columns", [1])
    assert kept.fault == "" and json.loads(file.read_text()) == {"columns": [1]}


def test_a_pipe_in_its_place_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tui.json")
    assert "not a file" in Kept(tmp_path / "tui.json").fault


def test_where_it_cannot_be_written_the_value_holds_and_the_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "saia").write_text("in the way")
    kept = Kept(tmp_path / "saia" / "tui.json")
    with pytest.raises(NotKept, match=r"tui\.json can't be written"):
        kept.put("columns", [1])
    assert kept.get("columns") == [1]
