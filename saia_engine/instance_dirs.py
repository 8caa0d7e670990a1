"""The instance directories on the shared file system: what the engine leaves for the agent, and reads back."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from saia_engine import agent
from saia_engine.edge.files import write_atomically
from saia_engine.front import Endpoint, EndpointFault, endpoint_name, exit_name, parse_endpoint, parse_exit
from saia_engine.model import Instance, LaunchSpec
from saia_engine.slurm.port import JobRequest

STOP_GRACE_S = 10.0
"""How long the agent lets the service end after SIGTERM."""
LARGEST_FILE = 1 << 20
TAIL_BYTES = 8192
_ENDPOINT = re.compile(r"endpoint\.([0-9]{1,6})\.json")
_EXIT = re.compile(r"exit\.([0-9]{1,6})\.json")


class Directories(Protocol):
    """What engine and probes ask of the instance directories. File system errors are OSError."""

    def prepare(self, instance: Instance, spec: LaunchSpec) -> JobRequest:
        """Write all that the job needs; `spec` has the real environment. Raises OSError."""
        ...

    def endpoint(self, instance: str, generation: int) -> Endpoint | None:
        """Raises EndpointFault for a file that can't be right."""
        ...

    def exit_sentence(self, instance: str, generation: int) -> str:
        """How the agent says that the service ended; empty where it says nothing."""
        ...

    def log_tail(self, instance: str, lines: int = 20) -> str:
        """The last lines of the job's output; raw: sanitise to show. Empty for none."""
        ...

    def recorded(self, instance: str) -> Instance | None:
        """The record as it was at launch, for adoption; None where there is none that can be used."""
        ...

    def unfinished(self) -> list[str]:
        """Instances whose last run has told no exit: their jobs may run. Raises OSError."""
        ...

    def newest_generation(self, instance: str) -> int | None:
        """Of its endpoint files; None where there is none, or none that can be seen."""
        ...

    def remove(self, instance: str) -> None: ...


@dataclass(frozen=True, slots=True)
class InstanceDirs:
    """All of them, under `root`. File system errors are OSError; a missing file is None."""

    root: Path
    agent_python: str = "python3"
    port_range: tuple[int, int] = (20000, 20999)

    def path(self, instance: str) -> Path:
        return self.root / instance

    def log(self, instance: str) -> Path:
        return self.path(instance) / "output.log"

    def prepare(self, instance: Instance, spec: LaunchSpec) -> JobRequest:
        """Write all that the job needs; `spec` has the real environment. Raises OSError."""
        directory = self.path(instance.id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        launch = {
            "version": 1,
            "instance": instance.id,
            "service": instance.service,
            "command": list(spec.command),
            "script": spec.script,
            "listen": spec.listen,
            "environment": dict(spec.environment),
            "readiness": spec.readiness_probe,
            "liveness": spec.liveness,
            "port_range": list(self.port_range),
            "stop_grace_s": STOP_GRACE_S,
        }
        agent_copy = directory / "agent.py"
        script = directory / "job.sh"
        write_atomically(agent_copy, Path(agent.__file__).read_bytes(), mode=0o600)
        write_atomically(directory / "launch.json", msgspec.json.encode(launch), mode=0o600)
        write_atomically(directory / "instance.json", msgspec.json.encode(instance), mode=0o600)
        # -I: what a service leaves in its directory must not stand in for the standard library.
        words = shlex.join([self.agent_python, "-I", str(agent_copy), str(directory)])
        # sbatch got no environment to pass on; the `srun` steps of a service shall have the job's.
        lines = ["#!/bin/sh", "export SLURM_EXPORT_ENV=ALL", f"exec {words}", ""]
        write_atomically(script, "\n".join(lines).encode(), mode=0o700)
        return JobRequest(
            name=instance.job_name,
            script=script,
            output=self.log(instance.id),
            workdir=directory,
            spec=spec,
        )

    def endpoint(self, instance: str, generation: int) -> Endpoint | None:
        """Raises EndpointFault for a file that can't be right."""
        try:
            text = _read_plain(self.path(instance) / endpoint_name(generation)).decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise EndpointFault(f"cannot be read: {exc}") from exc
        return parse_endpoint(text)

    def exit_sentence(self, instance: str, generation: int) -> str:
        """How the agent says that the service ended; empty where it says nothing."""
        try:
            return exit_told(_read_plain(self.path(instance) / exit_name(generation)).decode())
        except (OSError, UnicodeDecodeError):
            return ""

    def log_tail(self, instance: str, lines: int = 20) -> str:
        """The last lines of the job's output, of its last 8 KiB at most; raw: sanitise to show. Empty for none."""
        try:
            data = _read_plain(self.log(instance), TAIL_BYTES, from_end=True)
        except OSError:
            return ""
        return "\n".join(data.decode("utf-8", "replace").rstrip("\r\n").split("\n")[-lines:])

    def recorded(self, instance: str) -> Instance | None:
        """The record as it was at launch, for adoption; None where there is none that can be used."""
        try:
            return msgspec.json.decode(_read_plain(self.path(instance) / "instance.json"), type=Instance)
        except (OSError, msgspec.MsgspecError):
            return None

    def unfinished(self) -> list[str]:
        """Instances whose last run has told no exit: their jobs may run. Raises OSError."""
        entries = self.root.iterdir() if self.root.is_dir() else ()
        names = sorted(entry.name for entry in entries if entry.is_dir())
        return [name for name in names if not has_ended(self._files(name))]

    def newest_generation(self, instance: str) -> int | None:
        """Of its endpoint files; None where there is none, or none that can be seen."""
        return newest_endpoint(self._files(instance))

    def _files(self, instance: str) -> list[str]:
        """None where they can't be seen: one such directory must not hold up the engine."""
        try:
            return [path.name for path in self.path(instance).iterdir()]
        except OSError:
            return []

    def remove(self, instance: str) -> None:
        shutil.rmtree(self.path(instance), ignore_errors=True)


def newest_endpoint(names: Iterable[str]) -> int | None:
    """The highest generation of those that name an endpoint file."""
    return max(_generations(_ENDPOINT, names), default=None)


def has_ended(names: Iterable[str]) -> bool:
    """Whether the last run that an instance's files tell of has told its exit."""
    names = list(names)
    ended = max(_generations(_EXIT, names), default=-1)
    return ended >= max(_generations(_ENDPOINT, names), default=0)


def _generations(pattern: re.Pattern[str], names: Iterable[str]) -> Iterator[int]:
    return (int(match[1]) for name in names if (match := pattern.fullmatch(name)))


def exit_told(text: str) -> str:
    """An exit record as a sentence; empty where it is none."""
    try:
        record = parse_exit(text)
    except EndpointFault:
        return ""
    if record.signal is not None:
        return f"the service was ended by signal {record.signal}"
    return f"the service exited with code {record.exit_code}"


def _read_plain(path: Path, most: int = LARGEST_FILE, *, from_end: bool = False) -> bytes:
    """A service can write here: no named pipe must hold us up, no endless file fill our memory. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if from_end:
            file.seek(max(0, found.st_size - most))
        return file.read(most)
