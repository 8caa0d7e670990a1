from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from saia_tui.cli import main
from saia_tui.embedded import Embedded, EngineDied, answers


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="saia-", dir="/tmp") as directory:
        yield Path(directory)


def test_a_socket_answers_only_while_someone_listens(short: Path) -> None:
    path = short / "operator.sock"
    assert not answers(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert answers(path)
    assert path.exists() and not answers(path)


def test_an_engine_that_dies_tells_its_exit_code_and_the_end_of_its_log(short: Path) -> None:
    file = short / "engine.toml"
    file.write_text('[cluster]\nnme = "x"\n')
    engine = Embedded.start(file, short / "state")
    with pytest.raises(EngineDied) as died:
        engine.wait_until_it_answers(short / "operator.sock", 30)
    assert died.value.exit_code == 2
    assert "nme" in str(died.value) and "exit code 2" in str(died.value)
    assert not engine.alive and (short / "state" / "engine.log").stat().st_mode & 0o777 == 0o600


def test_without_a_terminal_it_says_what_to_use() -> None:
    with CliRunner().isolation():
        assert not sys.stdin.isatty()
        assert main(["--socket", "/nowhere/operator.sock"]) == 2


def test_help_says_what_it_attaches_to() -> None:
    from saia_tui.cli import cli

    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0 and "Attaches to the engine" in result.output
