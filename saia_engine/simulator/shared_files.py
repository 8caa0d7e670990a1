"""The shared file system in memory: instance directories and the lease, seen late from elsewhere, sometimes torn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from saia_engine.agent import endpoint_name, exit_name
from saia_engine.front import Endpoint, EndpointFault, parse_endpoint
from saia_engine.instance_dirs import exit_told, has_ended, newest_endpoint
from saia_engine.model import Instance, LaunchSpec
from saia_engine.simulator.site import SHARED_DELAY_S, Site
from saia_engine.slurm.port import JobRequest

Hazard = Callable[[str], None]
"""Called at each effect's boundary; raises where the engine dies there."""


@dataclass(slots=True)
class Version:
    """What a reader sees from `visible_at` on."""

    visible_at: float
    text: str


@dataclass(slots=True)
class SharedFiles:
    """By path: the versions of each file, oldest first."""

    site: Site
    files: dict[str, list[Version]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    """By job's name: of what its `instance.json` says that it runs."""

    def write(self, path: str, text: str, delay_s: float = 0.0) -> None:
        self.files.setdefault(path, []).append(Version(self.site.now + delay_s, text))

    def read(self, path: str) -> str | None:
        now = self.site.now
        seen = None
        for version in self.files.get(path, ()):
            if version.visible_at <= now:
                seen = version.text
        return seen

    def remove_under(self, directory: str) -> None:
        for path in [path for path in self.files if path.startswith(f"{directory}/")]:
            del self.files[path]


class SimDirs:
    """The instance directories, as one engine uses them."""

    def __init__(self, shared: SharedFiles, hazard: Hazard) -> None:
        self._shared = shared
        self._hazard = hazard

    def prepare(self, instance: Instance, spec: LaunchSpec) -> JobRequest:
        for name, text in (
            ("launch.json", instance.service),
            ("instance.json", msgspec.json.encode(instance).decode()),
            ("job.sh", "exec agent"),
        ):
            self._hazard("file")
            self._shared.write(f"{instance.id}/{name}", text)
        self._shared.revisions[instance.job_name] = instance.revision
        self._hazard("file-written")
        directory = Path("/shared/instances") / instance.id
        return JobRequest(
            name=instance.job_name,
            script=directory / "job.sh",
            output=directory / "output.log",
            workdir=directory,
            spec=spec,
        )

    def endpoint(self, instance: str, generation: int) -> Endpoint | None:
        text = self._shared.read(f"{instance}/{endpoint_name(generation)}")
        if text is None:
            return None
        return parse_endpoint(text)

    def exit_sentence(self, instance: str, generation: int) -> str:
        text = self._shared.read(f"{instance}/{exit_name(generation)}")
        return exit_told(text) if text is not None else ""

    def log_tail(self, instance: str, lines: int = 20) -> str:
        return "serving" if lines else ""

    def recorded(self, instance: str) -> Instance | None:
        text = self._shared.read(f"{instance}/instance.json")
        try:
            return None if text is None else msgspec.json.decode(text, type=Instance)
        except msgspec.MsgspecError:
            return None

    def unfinished(self) -> list[str]:
        files: dict[str, list[str]] = {}
        for path in self._shared.files:
            name, _, file = path.partition("/")
            files.setdefault(name, []).extend([file] if self._shared.read(path) is not None else [])
        return sorted(name for name, seen in files.items() if not has_ended(seen))

    def newest_generation(self, instance: str) -> int | None:
        paths = [path for path in self._shared.files if path.startswith(f"{instance}/")]
        return newest_endpoint(
            path.rpartition("/")[2] for path in paths if self._shared.read(path) is not None
        )

    def remove(self, instance: str) -> None:
        self._hazard("remove")
        self._shared.remove_under(instance)


class SharedLease:
    """`lease.json`: who writes sees it at once, other hosts up to a minute later."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._chance = site.chance("lease")
        self._versions: list[tuple[str, dict[str, float], bytes]] = []
        self.away_until = 0.0
        """The file system does not answer before."""

    def write(self, host: str, data: bytes) -> None:
        now = self._site.now
        self._refuse_if_away()
        seen = {other: now + self._chance.uniform(0.0, SHARED_DELAY_S) for other in ("a", "b")}
        seen[host] = now
        self._versions.append((host, seen, data))
        del self._versions[:-4]

    def read(self, host: str) -> bytes:
        self._refuse_if_away()
        now = self._site.now
        for _, seen, data in reversed(self._versions):
            if seen[host] <= now:
                return data
        raise FileNotFoundError("lease.json")

    def _refuse_if_away(self) -> None:
        if self._site.now < self.away_until:
            raise OSError("Stale file handle")


__all__ = ["EndpointFault", "Hazard", "SharedFiles", "SharedLease", "SimDirs"]
