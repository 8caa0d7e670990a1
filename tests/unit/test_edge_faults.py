import os
from pathlib import Path

import pytest

from saia_engine.edge.faults import ConfigFaults, Fault, did_you_mean, dotted, read_toml


def refusal(path: Path) -> str:
    with pytest.raises(ConfigFaults) as caught:
        read_toml(path)
    assert len(caught.value.faults) == 1
    return str(caught.value)


def test_a_fault_is_one_safe_line() -> None:
    fault = Fault("a.toml", "services.x\n", "is \x1b[31mwrong", "did you mean y?")
    assert str(fault) == "a.toml: services.x\\n: is \\x1b[31mwrong; did you mean y?"
    assert str(Fault("a.toml", "", "is not there")) == "a.toml: is not there"
    assert str(ConfigFaults([fault, fault])).count("\n") == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"a = ", "is not valid TOML"),
        (b"[a]\n[a]\n", "is not valid TOML"),
        (b"\x7fELF\x02\x01\x00\xff", "is not UTF-8 text"),
        (b"a = '\x1b'", "is not valid TOML"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a = " + b"9" * 5000, "is not valid TOML"),
        (b"#" * 1024**2 + b"\n", "is larger than 1 MiB"),
    ],
)
def test_what_is_not_toml_is_a_fault(tmp_path: Path, data: bytes, sentence: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(data)
    assert refusal(file).startswith(f"{file}: {sentence}")


def test_files_that_cannot_be_read_are_faults(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "missing.toml")
    assert "is not a regular file" in refusal(tmp_path)
    assert "is not a regular file" in refusal(Path("/dev/zero"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "is not a regular file" in refusal(fifo)
    assert "cannot be read" in refusal(tmp_path / "missing.toml" / "x\0y")
    (tmp_path / "file").touch()
    assert "cannot be read: Not a directory" in refusal(tmp_path / "file" / "x")


def test_a_file_of_someone_else_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.touch(mode=0o000)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root reads everything
    try:
        assert "cannot be read: Permission denied" in refusal(file)
    finally:
        if root:
            os.seteuid(0)


def test_suggestions() -> None:
    assert did_you_mean("replicass", ["replicas", "relays"]) == "did you mean replicas?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", map(str, range(20))) == ""
    assert dotted("services", "chat", "models", 0) == "services.chat.models[0]"
    assert dotted("services", "chat", "environment", "1X", "[key]") == "services.chat.environment.1X"
