"""The table `routes.json`: all that a gate knows. The engine writes it, gates read it (docs/architecture.md).

It holds secrets: whoever may read it may pass bytes to the instances.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from saia_engine.edge.files import write_atomically
from saia_engine.model import ProxyLimits

VERSION: Final = 1
LARGEST_BYTES: Final = 16 * 1024 * 1024
MODE: Final = 0o640

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Moment = Annotated[float, Meta(ge=0, le=1e11)]
"""Seconds since the epoch."""
Name = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")]
Id = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,256}\Z")]
Host = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9.:%_-]{0,252}\Z|\A[0-9A-Fa-f:.]{2,45}\Z")]
HttpPath = Annotated[str, Meta(pattern=r"\A/[!-~]*\Z", max_length=500)]
Method = Annotated[str, Meta(pattern=r"\A[A-Z]{1,20}\Z")]


class RoutesFault(Exception):
    """The table can't be read, or is none; the text is one sentence that says where and what."""


class ServiceEntry(msgspec.Struct, frozen=True):
    """What a proxy is told of a service, whether it has routes or not."""

    models: tuple[str, ...] = ()
    methods: tuple[Method, ...] = ()
    paths: tuple[HttpPath, ...] = ()
    replicas: Count = 0
    ready: Count = 0
    starting: Count = 0
    """All that come."""
    queued: Count = 0
    """Those of them that wait in Slurm's queue still."""
    eta: Moment | None = None
    """When the first of them may be ready, where that is known."""


class Route(msgspec.Struct, frozen=True):
    """An instance that may get requests, or drains and still has streams."""

    instance: Id
    service: Name
    generation: Count
    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    secret: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    """The agent's `gate_secret`."""
    protocol: Count
    methods: tuple[Method, ...]
    paths: tuple[HttpPath, ...]
    """Exact paths, or prefixes where they end in `/`."""
    admit_until: Moment
    """No new request after it."""
    end: Moment
    draining: bool = False


class RouteTable(msgspec.Struct, frozen=True):
    """The whole of it; fields that a newer engine added are ignored."""

    version: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    generation: Count
    """Rises with each change."""
    written_at: Moment
    installation: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
    cluster: Name
    gate_socket: Annotated[str, Meta(pattern=r"\A/[^\x00\n]+\Z", max_length=255)]
    proxies: dict[Name, ProxyLimits] = {}
    services: dict[Name, ServiceEntry] = {}
    routes: tuple[Route, ...] = ()


_decoder = msgspec.json.Decoder(RouteTable, strict=True)


def load(path: Path | str) -> RouteTable:
    """Raises RoutesFault."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as exc:
        raise RoutesFault(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from None
    return parse(data, str(path))


def parse(data: bytes, where: str = "routes") -> RouteTable:
    """Raises RoutesFault."""
    if len(data) > LARGEST_BYTES:
        raise RoutesFault(f"{where} is larger than {LARGEST_BYTES} bytes")
    try:
        table = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise RoutesFault(f"{where} is no table of routes that this version knows: {exc}") from None
    _check(table, where)
    return table


def write(path: Path | str, table: RouteTable, gid: int | None = None) -> None:
    """Replace the file at once and durably, 0640, of group `gid` where one is given.

    Raises RoutesFault for a table that `load` would refuse, OSError.
    """
    data = msgspec.json.format(msgspec.json.encode(table), indent=1)
    parse(data, str(path))
    write_atomically(Path(path), data + b"\n", mode=MODE, gid=gid)


@dataclass(frozen=True, slots=True)
class RoutesFile:
    """The table's file, of group `gid` where one is given."""

    path: Path
    gid: int | None = None

    def load(self) -> RouteTable:
        """Raises RoutesFault."""
        return load(self.path)

    def write(self, table: RouteTable) -> None:
        """Raises RoutesFault for a table that `load` would refuse, OSError with the file's name."""
        write(self.path, table, self.gid)


def _check(table: RouteTable, where: str) -> None:
    instances = [route.instance for route in table.routes]
    if len(set(instances)) != len(instances):
        raise RoutesFault(f"{where} names one instance twice")
    for name, limits in table.proxies.items():
        if min(limits.relays, limits.streams, limits.opens_per_second, limits.memory_mib) < 1:
            raise RoutesFault(f"{where}: the limits of proxy {name} must be 1 or more")
