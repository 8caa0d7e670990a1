"""Whole launch specs on the local disk, for rollbacks: the journal holds them without their environments."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from saia_engine.edge.files import write_atomically
from saia_engine.model import LaunchSpec

_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9a-f]{12})\.json")


@dataclass(frozen=True, slots=True)
class RevisionFiles:
    """One file a revision, `<service>.<revision>.json`, readable by the engine's user only."""

    root: Path

    def save(self, service: str, spec: LaunchSpec) -> None:
        """Durable when it returns. Raises OSError."""
        path = self._path(service, spec.revision)
        if self.load(service, spec.revision) != spec:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, msgspec.json.encode(spec), mode=0o600)

    def load(self, service: str, revision: str) -> LaunchSpec | None:
        """None where there is none, or a damaged one."""
        path = self._path(service, revision)
        if _NAME.fullmatch(f"{service}.{revision}.json") is None:
            return None  # an operator may ask for anything
        try:
            spec = msgspec.json.decode(path.read_bytes(), type=LaunchSpec)
        except (OSError, msgspec.MsgspecError):
            return None
        return spec if spec.revision == revision else None

    def saved(self) -> dict[str, dict[str, float]]:
        """Of each service its revisions, with the time at which each file was written."""
        found: dict[str, dict[str, float]] = {}
        for path in self.root.glob("*.json") if self.root.is_dir() else ():
            if (name := _NAME.fullmatch(path.name)) and self.load(name[1], name[2]) is not None:
                found.setdefault(name[1], {})[name[2]] = path.stat().st_mtime
        return found

    def keep_only(self, service: str, revisions: Collection[str]) -> None:
        """Remove the others of that service. Raises OSError."""
        for path in self.root.glob(f"{service}.*.json"):
            name = _NAME.fullmatch(path.name)
            if name and name[1] == service and name[2] not in revisions:
                path.unlink(missing_ok=True)

    def _path(self, service: str, revision: str) -> Path:
        return self.root / f"{service}.{revision}.json"
