"""The proxy's configuration file, and the API keys in it.

`load` raises ConfigFaults with every fault of the file at once.
"""

# ruff: noqa: RUF012 (pydantic copies mutable defaults)

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from saia_engine.edge import durations, sizes, words
from saia_engine.edge.door import Door, Table, Wrong
from saia_engine.edge.faults import ConfigFaults, Fault, read_toml
from saia_engine.edge.text import clean
from saia_proxy.health import TOLERANCE, Tolerance

__all__ = [
    "BY_KEY",
    "ApiKey",
    "Balancing",
    "ConfigFaults",
    "Fault",
    "ProxyConfig",
    "QueueRule",
    "Queues",
    "Server",
    "SshUpstream",
    "SubprocessUpstream",
    "Timeouts",
    "check_lines",
    "hash_key",
    "load",
    "new_key",
]

KEY_PREFIX = "sk-saia-"
LOCAL = ("127.0.0.0/8", "::1/128")
SERVICE = "service:"
"""What begins the name of a service among a key's models."""
CONNECTIONS = 2
"""To one upstream, of each worker."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where clients come in."""

    host: str
    port: int
    """0: any free port."""
    max_body_bytes: int
    max_buffered_bytes: int
    """What all bodies that are held in memory may take together."""
    state_dir: Path
    trusted_proxies: tuple[str, ...]
    """Addresses or networks whose X-Forwarded-For is believed."""
    tls_certificate: Path | None
    tls_key: Path | None
    metrics_from: tuple[str, ...] = LOCAL
    """Addresses or networks that may read /metrics."""
    workers: int = 1
    """Processes that serve."""


Client = Literal["auto", "openssh", "asyncssh"]


@dataclass(frozen=True, slots=True)
class SshUpstream:
    """A login node that the restricted key reaches."""

    name: str
    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    connections: int = CONNECTIONS
    client: Client = "auto"
    """Who speaks SSH: OpenSSH's client as our child, or asyncssh within; `auto`: OpenSSH's where it is installed."""


@dataclass(frozen=True, slots=True)
class SubprocessUpstream:
    """A gate on this machine, spoken to over its stdin and stdout."""

    name: str
    command: tuple[str, ...]
    connections: int = CONNECTIONS


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a request may wait: for a connection, its first byte, the next byte, and in all."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float


BY_KEY = "key"


@dataclass(frozen=True, slots=True)
class Balancing:
    """Which instance gets a request."""

    affinity: str = ""
    """`key`, or the name of a header, in lower case: requests that agree in it go to the same instance."""
    tolerance: Tolerance = TOLERANCE


BALANCING = Balancing()


@dataclass(frozen=True, slots=True)
class QueueRule:
    """How requests for a service wait while no instance of it may take them."""

    max_waiting: int = 100
    max_wait_s: float = 30.0
    """0: not at all."""
    heartbeat_s: float = 10.0
    max_in_flight: int = 0
    """Requests at one instance, beyond which others wait; 0: no bound."""

    def share(self, workers: int) -> QueueRule:
        """One worker's part of it."""
        return replace(
            self,
            max_waiting=-(-self.max_waiting // workers),
            max_in_flight=-(-self.max_in_flight // workers),
        )


@dataclass(frozen=True, slots=True)
class Queues:
    """The rule of each service."""

    rule: QueueRule = QueueRule()
    services: Mapping[str, QueueRule] = field(default_factory=dict)
    """Those that have a rule of their own."""

    def of(self, service: str) -> QueueRule:
        return self.services.get(service, self.rule)

    def share(self, workers: int) -> Queues:
        """One worker's part of them."""
        own = {name: rule.share(workers) for name, rule in self.services.items()}
        return Queues(self.rule.share(workers), own)


QUEUES = Queues()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client's key, known by its hash only."""

    name: str
    hash: str
    """As `hash_key` makes it."""
    models: tuple[str, ...]
    """`*` stands for all, `service:NAME` for a whole service below /services/."""
    concurrency: int = 0
    """Requests at once; 0: no limit but the gate's."""
    per_minute: int = 0
    """Requests a minute; 0: no limit."""


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """One valid configuration file."""

    file: Path
    server: Server
    upstreams: tuple[SshUpstream | SubprocessUpstream, ...]
    timeouts: Timeouts
    keys: tuple[ApiKey, ...]
    balancing: Balancing = BALANCING
    queues: Queues = QUEUES


def hash_key(key: str) -> str:
    """What the file holds instead of a key. Keys are random, so a plain SHA-256 keeps them."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> tuple[str, str]:
    """A new API key for a client, and its hash for the file."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, hash_key(key)


# ---------------------------------------------------------------- the tables of the file


def _hash(word: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", word):
        raise ValueError(
            'must be "sha256:" and 64 hex digits, the hash of a key: `saia-proxy new-key` makes both'
        )
    return word


def _network(word: str) -> str:
    try:
        return str(ipaddress.ip_network(word))
    except ValueError:
        raise ValueError('must be an address or a network, such as "192.0.2.7" or "10.0.0.0/8"') from None


def _user(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}", word):
        raise ValueError("must be the name of an account")
    return word


def _client_model(word: str) -> str:
    if word.startswith(SERVICE):
        return SERVICE + words.name(word.removeprefix(SERVICE))
    return word if word == "*" else words.model(word)


def _affinity(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{0,64}", word):
        raise ValueError('must be "key" or the name of a header, such as "x-session-id"')
    return word.lower()


def _at_least_a_second(seconds: float) -> float:
    if seconds < 1:
        raise ValueError("must be 1s or longer")
    return seconds


def _none_or_a_second(seconds: float) -> float:
    if 0 < seconds < 1:
        raise ValueError('must be 1s or longer, or "0s"')
    return seconds


def _some_bytes(size: int) -> int:
    if size < 1024:
        raise ValueError("must be at least 1KiB")
    return size


_Duration = Annotated[float, BeforeValidator(durations.parse), AfterValidator(_at_least_a_second)]
_DurationOrNone = Annotated[float, BeforeValidator(durations.parse), AfterValidator(_none_or_a_second)]
_Host = Annotated[str, AfterValidator(words.host)]
_FilePath = Annotated[str, AfterValidator(words.file_path)]
_Name = Annotated[str, AfterValidator(words.name)]
_Bytes = Annotated[int, BeforeValidator(sizes.parse_bytes), AfterValidator(_some_bytes)]


class _File(Table):
    server: dict[str, Any] = {}
    upstreams: list[Any] = []
    timeouts: dict[str, Any] = {}
    balancing: dict[str, Any] = {}
    queue: dict[str, Any] = {}
    keys: dict[str, Any] = {}


class _Server(Table):
    host: _Host = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    max_body: _Bytes = 50 * 1024**2
    max_buffered: _Bytes = 512 * 1024**2
    state_dir: _FilePath = ""
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = []
    tls_certificate: _FilePath = ""
    tls_key: _FilePath = ""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    metrics_from: list[Annotated[str, AfterValidator(_network)]] = list(LOCAL)


class _Upstream(Table):
    name: _Name = ""
    transport: Literal["ssh", "subprocess"] = "ssh"
    host: _Host = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: Annotated[str, AfterValidator(_user)] = ""
    key: _FilePath = ""
    known_hosts: _FilePath = ""
    command: list[Annotated[str, AfterValidator(words.without_nul)]] = []
    connections: Annotated[int, Field(ge=1, le=8)] = CONNECTIONS
    client: Client = "auto"


class _Timeouts(Table):
    connect: _Duration = 10.0
    first_byte: _Duration = 600.0
    idle: _Duration = 300.0
    total: _Duration = 3600.0


class _Balancing(Table):
    affinity: Annotated[str, AfterValidator(_affinity)] = ""
    eject_after: Annotated[int, Field(ge=1, le=1000)] = TOLERANCE.eject_after
    eject_for: _Duration = TOLERANCE.eject_for_s
    stall_after: _Duration = TOLERANCE.stall_after_s


class _QueueRule(Table):
    max_waiting: Annotated[int, Field(ge=0, le=10_000)] = QUEUES.rule.max_waiting
    max_wait: _DurationOrNone = QUEUES.rule.max_wait_s
    heartbeat: _Duration = QUEUES.rule.heartbeat_s
    max_in_flight: Annotated[int, Field(ge=0, le=1_000_000)] = QUEUES.rule.max_in_flight


class _Queue(_QueueRule):
    services: dict[str, Any] = {}


class _Key(Table):
    hash: Annotated[str, AfterValidator(_hash)] = ""
    models: Annotated[list[Annotated[str, AfterValidator(_client_model)]], Field(min_length=1)] = ["*"]
    concurrency: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    requests_per_minute: Annotated[int, Field(ge=0, le=10_000_000)] = 0


_SSH_KEYS = ("host", "user", "key", "known_hosts")


# ---------------------------------------------------------------- from tables to values


def load(path: Path | str) -> ProxyConfig:
    """The file as a ProxyConfig; relative paths in it start at its directory. Raises ConfigFaults."""
    door = Door(path)
    top, top_bad = door.open(_File, read_toml(Path(path)))
    server, server_bad = door.open(_Server, top.server, "server")
    if "server" not in top_bad:
        door.add(_server_faults(door, server, server_bad), "server")
    timeouts, timeouts_bad = door.open(_Timeouts, top.timeouts, "timeouts")
    if not timeouts_bad:
        door.add(_timeout_faults(timeouts), "timeouts")
    balancing, _ = door.open(_Balancing, top.balancing, "balancing")
    queues = _queues(door, top.queue, timeouts.total)
    if not top.upstreams and "upstreams" not in top_bad:
        door.add([("upstreams", "is required", "add an [[upstreams]] table for each login node")])
    upstreams = [_upstream(door, index, data) for index, data in enumerate(top.upstreams)]
    door.add(_same_names(upstreams))
    keys = _keys(door, top.keys)
    if door.faults:
        raise ConfigFaults(door.faults)
    return ProxyConfig(
        file=door.directory / Path(path).name,
        server=Server(
            host=server.host,
            port=server.port,
            max_body_bytes=server.max_body,
            max_buffered_bytes=server.max_buffered,
            state_dir=door.path(server.state_dir),
            trusted_proxies=tuple(server.trusted_proxies),
            tls_certificate=door.path(server.tls_certificate) if server.tls_certificate else None,
            tls_key=door.path(server.tls_key) if server.tls_key else None,
            metrics_from=tuple(server.metrics_from),
            workers=server.workers,
        ),
        upstreams=tuple(_upstream_value(door, table) for table in upstreams),
        timeouts=Timeouts(timeouts.connect, timeouts.first_byte, timeouts.idle, timeouts.total),
        keys=tuple(keys.values()),
        balancing=Balancing(
            balancing.affinity, Tolerance(balancing.eject_after, balancing.eject_for, balancing.stall_after)
        ),
        queues=queues,
    )


def _server_faults(door: Door, table: _Server, bad: frozenset[str]) -> Iterator[Wrong]:
    if not bad & {"max_body", "max_buffered"} and table.max_buffered < table.max_body:
        yield "max_buffered", "is smaller than max_body", "raise it, or lower max_body"
    if not table.state_dir and "state_dir" not in bad:
        yield "state_dir", "is required", "a directory of the proxy's own, such as /var/lib/saia-proxy"
    if bad & {"tls_certificate", "tls_key"}:
        return
    if bool(table.tls_certificate) != bool(table.tls_key):
        missing = "tls_key" if table.tls_certificate else "tls_certificate"
        yield missing, "is required beside the other half", "give both for TLS, or none behind a TLS proxy"
    elif table.tls_certificate:
        yield from _file_faults("tls_certificate", door.path(table.tls_certificate))
        yield from _file_faults("tls_key", door.path(table.tls_key))


def _timeout_faults(table: _Timeouts) -> Iterator[Wrong]:
    for name in ("connect", "first_byte", "idle"):
        if getattr(table, name) > table.total:
            yield name, f"is longer than total, {durations.spell(table.total)}", "raise total or lower it"


def _queues(door: Door, data: object, total_s: float) -> Queues:
    table, bad = door.open(_Queue, data, "queue")
    door.add(_queue_faults(table, bad, total_s), "queue")
    services: dict[str, QueueRule] = {}
    for name, own in table.services.items():
        changes, bad = door.named(_QueueRule, own, "queue", "services", name)
        door.add(_queue_faults(changes, bad, total_s), "queue", "services", name)
        whole = table.model_copy(update=changes.model_dump(exclude_unset=True))
        services[name] = _queue_rule(whole, total_s)
    return Queues(_queue_rule(table, total_s), services)


def _queue_rule(table: _QueueRule, total_s: float) -> QueueRule:
    max_wait_s = min(table.max_wait, total_s)
    return QueueRule(table.max_waiting, max_wait_s, table.heartbeat, table.max_in_flight)


def _queue_faults(table: _QueueRule, bad: frozenset[str], total_s: float) -> Iterator[Wrong]:
    if "max_wait" not in bad and "max_wait" in table.model_fields_set and table.max_wait > total_s:
        longest = durations.spell(total_s)
        yield "max_wait", f"is longer than timeouts.total, {longest}", "raise total or lower it"


def _upstream(door: Door, index: int, data: object) -> _Upstream:
    prefix = ("upstreams", index)
    table, bad = door.open(_Upstream, data, *prefix)
    if not table.name and "name" not in bad:
        door.add([("name", "is required", "")], *prefix)
    if "transport" in bad:
        return table
    if table.transport == "ssh":
        door.add(_ssh_faults(door, table, bad), *prefix)
    else:
        door.add(_subprocess_faults(table, bad), *prefix)
    return table


def _ssh_faults(door: Door, table: _Upstream, bad: frozenset[str]) -> Iterator[Wrong]:
    hints = {"known_hosts": "the pinned host key: one line of `ssh-keyscan HOST`, checked with the site"}
    for name in _SSH_KEYS:
        if name not in bad and not getattr(table, name):
            yield name, 'is required for transport = "ssh"', hints.get(name, "")
    if table.command:
        yield "command", 'is only for transport = "subprocess"', "remove it"
    if table.key and "key" not in bad:
        yield from _file_faults("key", door.path(table.key), private=True)
    if table.known_hosts and "known_hosts" not in bad:
        yield from _file_faults("known_hosts", door.path(table.known_hosts))


def _subprocess_faults(table: _Upstream, bad: frozenset[str]) -> Iterator[Wrong]:
    if "command" not in bad and not (table.command and table.command[0]):
        yield "command", 'is required for transport = "subprocess"', ""
    for name in _SSH_KEYS:
        if getattr(table, name):
            yield name, 'is only for transport = "ssh"', "remove it"
    if table.client != "auto" and "client" not in bad:
        yield "client", 'is only for transport = "ssh"', "remove it"


def _file_faults(key: str, path: Path, *, private: bool = False) -> Iterator[Wrong]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield key, f"{path} is not a regular file", ""
            return
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        yield key, f"there is no file {path}", ""
        return
    except (OSError, ValueError) as exc:
        yield key, f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}", ""
        return
    if empty:
        yield key, f"{path} is empty", ""
    if private and status.st_mode & 0o077:
        yield (
            key,
            f"others can read {path} (mode {stat.S_IMODE(status.st_mode):04o})",
            f"run: chmod 600 {path}",
        )


def _same_names(upstreams: list[_Upstream]) -> Iterator[Wrong]:
    names = [table.name for table in upstreams]
    for index, name in enumerate(names):
        if name and name in names[:index]:
            yield f"upstreams[{index}].name", f"{name} is already the name of another upstream", ""


def _keys(door: Door, tables: Mapping[str, Any]) -> dict[str, ApiKey]:
    keys: dict[str, ApiKey] = {}
    for name, data in tables.items():
        table, bad = door.named(_Key, data, "keys", name)
        if "hash" in bad:
            continue
        if not table.hash:
            door.add([("hash", "is required", "")], "keys", name)
        elif table.hash in keys:
            wrong = ("hash", f"is that of {keys[table.hash].name} too", "give each client a key of its own")
            door.add([wrong], "keys", name)
        else:
            keys[table.hash] = ApiKey(
                name, table.hash, tuple(table.models), table.concurrency, table.requests_per_minute
            )
    return keys


def _upstream_value(door: Door, table: _Upstream) -> SshUpstream | SubprocessUpstream:
    if table.transport == "subprocess":
        command = (word.replace("{saia_python}", sys.executable) for word in table.command)
        return SubprocessUpstream(table.name, tuple(command), table.connections)
    key, known_hosts = door.path(table.key), door.path(table.known_hosts)
    return SshUpstream(
        table.name, table.host, table.port, table.user, key, known_hosts, table.connections, table.client
    )


# ---------------------------------------------------------------- for people


_CLIENTS = {
    "auto": "by OpenSSH's client where it is installed, else by asyncssh",
    "openssh": "by OpenSSH's client",
    "asyncssh": "by asyncssh",
}


def _rights(key: ApiKey) -> str:
    words = ["all models" if "*" in key.models else ", ".join(key.models)]
    if key.concurrency:
        words.append(f"{key.concurrency} requests at once")
    if key.per_minute:
        words.append(f"{key.per_minute} requests a minute")
    return "; ".join(words)


def _wait(rule: QueueRule) -> str:
    if not rule.max_wait_s:
        words = "none waits"
    else:
        words = f"up to {rule.max_waiting} requests wait {durations.spell(rule.max_wait_s)} for an instance"
    return f"{words}, {rule.max_in_flight} at once at each" if rule.max_in_flight else words


def check_lines(config: ProxyConfig) -> list[str]:
    """What `check` prints of a valid file: one line a fact, no hash."""
    server, timeouts = config.server, config.timeouts
    scheme = "https" if server.tls_certificate else "http"
    lines = [
        f"serves {scheme}://{server.host}:{server.port}, bodies up to {server.max_body_bytes // 1024} KiB"
        f" ({server.max_buffered_bytes // 1024} KiB in all), state in {server.state_dir}"
    ]
    if scheme == "http" and server.host not in ("127.0.0.1", "::1", "localhost"):
        lines.append(
            "  without TLS on a public address: put a TLS proxy before it, or set tls_certificate and tls_key"
        )
    for upstream in config.upstreams:
        if isinstance(upstream, SshUpstream):
            lines.append(
                f"upstream {upstream.name}: ssh {upstream.user}@{upstream.host} port {upstream.port}"
            )
            lines.append(f"  {_CLIENTS[upstream.client]}")
        else:
            lines.append(f"upstream {upstream.name}: runs {Path(upstream.command[0]).name}")
        relays = server.workers * upstream.connections
        lines.append(
            f"  {relays} relays there, for a time {2 * relays} when its gate is upgraded:"
            " the engine's [proxies] must allow as many"
        )
    lines.append(
        f"waits: connection {durations.spell(timeouts.connect_s)}, first byte {durations.spell(timeouts.first_byte_s)},"
        f" next byte {durations.spell(timeouts.idle_s)}, in all {durations.spell(timeouts.total_s)}"
    )
    lines.append(f"queue of a service: {_wait(config.queues.rule)}")
    lines += [f"queue of {name}: {_wait(rule)}" for name, rule in config.queues.services.items()]
    lines += [f"key {key.name}: {_rights(key)}" for key in config.keys]
    if not config.keys:
        lines.append("no keys: every request will be refused")
    return [clean(line) for line in lines]
