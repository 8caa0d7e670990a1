"""saia's agent, the first process of a job: starts the service and stands in front of it.

One file, Python 3.6 and its standard library only: it is copied into each instance's directory, so that a job
keeps the agent it was launched with. Run as `python3 agent.py <instance directory>`; the exit code is the
service's (128 + signal where a signal ended it), 2 for a bad launch.json, 1 where the agent could not start.

The first section holds the names and the proof of the front's protocol; engine and gate import them from here.
"""

# Python 3.6 has neither the builtin aliases nor the syntax that these rules ask for.
# ruff: noqa: UP007, UP041

import asyncio
import collections
import errno
import hmac
import http.client
import io
import json
import math
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Union

# ---------------------------------------------------------------- names and proof of the front's protocol

PROTOCOL = 1
DATA, WATCH, CONTROL = "data", "watch", "control"
ROLES = (DATA, WATCH, CONTROL)
SERVING, DRAINING = "serving", "draining"
REFUSALS = ("proof", "version", "draining", "busy", "protocol", "service")
CLIENT, AGENT = "client", "agent"

HANDSHAKE_S = 2.0
HANDSHAKE_BYTES = 256
MAX_UNPROVEN = 64
HEARTBEAT_S = 3.0
LIVE_S = 10.0
"""A watch connection without a line for so long is not live."""

FILE_VERSION = 1
LAUNCH_NAME = "launch.json"
SECRET = re.compile("[0-9a-f]{64}")
NONCE = re.compile("[0-9a-f]{32}")


def endpoint_name(generation: int) -> str:
    """Name of the endpoint file of one generation, in the instance directory."""
    return f"endpoint.{generation}.json"


def exit_name(generation: int) -> str:
    """Name of the exit record of one generation, in the instance directory."""
    return f"exit.{generation}.json"


def new_nonce() -> str:
    return secrets.token_hex(16)


def mac(
    secret: str, speaker: str, role: str, instance: str, generation: int, client_nonce: str, agent_nonce: str
) -> str:
    """64 hex digits that prove, for this one connection, that `speaker` (CLIENT or AGENT) knows the secret.

    The key is the 32 bytes that the secret's 64 hex digits stand for.
    """
    words = (speaker, role, str(PROTOCOL), instance, str(generation), client_nonce, agent_nonce)
    return hmac.new(bytes.fromhex(secret), "|".join(words).encode(), "sha256").hexdigest()


def hello_line(role: str, client_nonce: str) -> bytes:
    return f"saia {PROTOCOL} {role} {client_nonce}\n".encode()


def nonce_line(agent_nonce: str) -> bytes:
    return f"nonce {agent_nonce}\n".encode()


def proof_line(proof: str) -> bytes:
    return f"proof {proof}\n".encode()


def refusal_line(code: str) -> bytes:
    return f"refused {code}\n".encode()


# ---------------------------------------------------------------- the instance directory

STOP_GRACE_MAX_S = 3600
PROBE_MAX_S = 86400
HTTP, COMPLETION = "http", "completion"
EXIT_FAILED, EXIT_USAGE = 1, 2


class LaunchFault(Exception):
    """launch.json, or the way the agent was called, is wrong; the text says what."""


class StartFault(Exception):
    """The agent can't do its work here; the text says why."""

    def __init__(self, text: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Probe(NamedTuple):
    """How to ask the service: for 2xx of a GET, or for choices of one token's completion."""

    kind: str
    path: str
    model: str
    interval_s: float
    timeout_s: float
    failures: int


class Launch(NamedTuple):
    """What to run: the content of launch.json."""

    instance: str
    service: str
    command: list
    script: str
    listen: str
    environment: dict
    readiness: Probe
    liveness: Union[Probe, None]
    port_range: list
    stop_grace_s: float


def _text(value: object, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _argument(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _good_environment(value: object) -> bool:
    return isinstance(value, dict) and all(
        _text(name, "[A-Za-z_][A-Za-z0-9_]*") and _argument(text) for name, text in value.items()
    )


def _good_range(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(_whole(port, 1, 65535) for port in value) and value[0] <= value[1]


def _seconds(value: object, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def _good_probe(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("kind") in (HTTP, COMPLETION)
        and _text(value.get("path"), "/[!-~]*")
        and _argument(value.get("model"))
        and _seconds(value.get("interval_s"), PROBE_MAX_S)
        and _seconds(value.get("timeout_s"), PROBE_MAX_S)
        and _whole(value.get("failures"), 1, 1000)
    )


LAUNCH_RULES = (
    ("instance", lambda v: _text(v, "[A-Za-z0-9._-]{1,200}"), "must be letters, digits, dots and dashes"),
    ("service", lambda v: _text(v, "[A-Za-z0-9._-]{1,100}"), "must be letters, digits, dots and dashes"),
    ("command", lambda v: isinstance(v, list) and all(map(_argument, v)), "must be a list of strings"),
    ("script", _argument, "must be a string"),
    ("listen", lambda v: v in ("socket", "port"), 'must be "socket" or "port"'),
    ("environment", _good_environment, "must map variable names to strings"),
    ("readiness", _good_probe, "must be a probe: kind, path, model, interval_s, timeout_s, failures"),
    ("liveness", lambda v: v is None or _good_probe(v), "must be a probe, or null"),
    ("port_range", _good_range, "must be two ports, the lower first"),
    ("stop_grace_s", lambda v: _seconds(v, STOP_GRACE_MAX_S), f"must be 0 to {STOP_GRACE_MAX_S} seconds"),
)


def parse_launch(text: str) -> Launch:
    """The content of launch.json. Raises LaunchFault with one line that names the key."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise LaunchFault(f"{LAUNCH_NAME} is not JSON: {fault}") from None
    if not isinstance(content, dict):
        raise LaunchFault(f"{LAUNCH_NAME} must be a JSON object")
    if content.get("version") != FILE_VERSION:
        raise LaunchFault(f"{LAUNCH_NAME}: 'version' must be {FILE_VERSION}; this agent knows no other")
    for key, good, should in LAUNCH_RULES:
        if key not in content:
            raise LaunchFault(f"{LAUNCH_NAME} lacks '{key}'; it {should}")
        if not good(content[key]):
            raise LaunchFault(f"{LAUNCH_NAME}: '{key}' {should}")
    if bool(content["command"]) == bool(content["script"].strip()):
        raise LaunchFault(f"{LAUNCH_NAME}: one of 'command' and 'script' must be set, the other empty")
    for key in ("readiness", "liveness"):
        if content[key] is not None:
            content[key] = Probe(**{name: content[key][name] for name in Probe._fields})
    return Launch(**{key: content[key] for key in Launch._fields})


def read_launch(directory: Path) -> Launch:
    path = directory / LAUNCH_NAME
    try:
        return parse_launch(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise LaunchFault(f"can't read {path}: {getattr(fault, 'strerror', None) or fault}") from None


def read_generation(environment: dict) -> int:
    """Slurm's restart count of this job; 0 when it is unset."""
    text = environment.get("SLURM_RESTART_COUNT", "") or "0"
    if re.fullmatch("[0-9]{1,6}", text) is None:
        raise LaunchFault("SLURM_RESTART_COUNT must be a whole number")
    return int(text)


def write_record(directory: Path, name: str, content: dict) -> None:
    """Puts a 0600 file in place whole or not at all. Raises OSError."""
    temporary = directory / f".{name}.{os.getpid()}.tmp"
    descriptor = os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(directory / name)
    except OSError:
        temporary.unlink()
        raise


def say(text: str) -> None:
    """One line into the instance's log; a log that can't be written stops nothing."""
    try:
        sys.stderr.write(f"saia-agent: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


# ---------------------------------------------------------------- the way to the service

SOCKET_PATH_MAX = 100
CONNECT_S = 2.0
BACKLOG_RETRY_S = 0.02


class ServiceDown(Exception):
    """The service could not be reached; the text says why."""


class SocketService:
    """A service that listens on a Unix socket, in a directory that only we may enter."""

    variable = "SAIA_SOCKET"
    placeholder = "{socket}"

    def __init__(self) -> None:
        self._directory = self._make_directory()
        self.address = str(self._directory / "http")

    @staticmethod
    def _make_directory() -> Path:
        for base in (Path(os.environ.get("TMPDIR", "")), Path("/tmp")):
            if not base.is_absolute():
                continue
            try:
                directory = Path(tempfile.mkdtemp(prefix="saia-", dir=str(base)))
            except OSError:
                continue
            if len(os.fsencode(str(directory / "http"))) < SOCKET_PATH_MAX:
                return directory
            directory.rmdir()
        raise StartFault("can't make a directory for the service's socket in $TMPDIR or /tmp")

    async def connect(self) -> socket.socket:
        """A connected socket. Raises ServiceDown."""
        loop = asyncio.get_event_loop()
        deadline = loop.time() + CONNECT_S
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        while True:
            try:
                link.connect(self.address)
                return link
            except BlockingIOError:
                # A full backlog: unlike TCP's, this connect is not under way, it has to be tried again.
                if loop.time() > deadline:
                    link.close()
                    raise ServiceDown("the service takes no new connections") from None
            except OSError as fault:
                link.close()
                raise ServiceDown(f"the service's socket: {fault.strerror}") from None
            try:
                await asyncio.sleep(BACKLOG_RETRY_S)
            except asyncio.CancelledError:
                link.close()
                raise

    def doubt(self) -> None:
        """The directory is ours alone: there is nothing to check again."""

    def remove(self) -> None:
        shutil.rmtree(str(self._directory), ignore_errors=True)


class PortService:
    """A service on a loopback port, which any user of the node could take: so we look whose listener it is."""

    variable = "SAIA_PORT"
    placeholder = "{port}"

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = str(self.port)
        self._host = ""

    async def connect(self) -> socket.socket:
        """A connected socket. Raises ServiceDown."""
        self._host = self._host or own_listener(self.port)
        link = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        link.setblocking(False)
        loop = asyncio.get_event_loop()
        try:
            await asyncio.wait_for(loop.sock_connect(link, (self._host, self.port)), CONNECT_S)
        except (OSError, asyncio.TimeoutError) as fault:
            link.close()
            self.doubt()
            reason = getattr(fault, "strerror", None) or "no answer"
            raise ServiceDown(f"the service's port {self.port}: {reason}") from None
        except asyncio.CancelledError:
            link.close()
            raise
        return link

    def doubt(self) -> None:
        """Look again at the next connection whose listener it is."""
        self._host = ""

    def remove(self) -> None:
        """A port needs no clearing away."""


def own_listener(port: int) -> str:
    """The loopback address at which our own user listens on the port.

    Raises ServiceDown where nobody listens, or someone else.
    """
    listeners = read_listeners("/proc/net/tcp", port)
    listeners6 = read_listeners("/proc/net/tcp6", port)
    ways = (
        ("127.0.0.1", listeners, ("127.0.0.1", "0.0.0.0")),
        ("::1", listeners6, ("::1", "::")),
        ("127.0.0.1", listeners6, ("::ffff:127.0.0.1",)),
    )
    for host, table, addresses in ways:
        owners = {uid for address, uid in table if address in [_proc_address(known) for known in addresses]}
        if owners - {os.geteuid()}:
            raise ServiceDown(f"port {port} is taken by another user (uid {min(owners - {os.geteuid()})})")
        if owners:
            return host
    raise ServiceDown(f"nothing listens on port {port} yet")


def read_listeners(path: str, port: int) -> list:
    """(address in the kernel's notation, uid) of each listener on the port. Raises ServiceDown."""
    found = []
    try:
        with Path(path).open() as table:
            next(table, None)
            for row in table:
                fields = row.split()
                if fields[3] != "0A":
                    break  # the kernel lists all listeners first, and there may be many connections
                address, _, number = fields[1].partition(":")
                if int(number, 16) == port:
                    found.append((address, int(fields[7])))
    except FileNotFoundError:
        return []  # no IPv6 on this host; without /proc nothing is found, so nothing is trusted
    except (OSError, ValueError, IndexError) as fault:
        raise ServiceDown(f"can't read {path}: {fault}") from None
    return found


def _proc_address(address: str) -> str:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


AnyService = Union[SocketService, PortService]

# ---------------------------------------------------------------- the front

ACCEPTS_PER_TURN = 16
BACKLOG = 256
YOUNG_S = 0.25
"""So long nobody's unproven place is given away: an honest client proves itself in less."""
NO_DESCRIPTOR_PAUSE_S = 0.5
LINE_MAX = 1024
UNREAD_MAX = 65536
KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


def bind_front(low: int, high: int) -> list:
    """Sockets of both families on one free port of the range, all addresses. Raises StartFault."""
    span = high - low + 1
    start = secrets.randbelow(span)
    for step in range(span):
        try:
            return _bind_both(low + (start + step) % span)
        except OSError as fault:
            if fault.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise StartFault(f"can't open a port: {fault}") from None
    raise StartFault(f"no free port in {low} to {high}")


def _bind_both(port: int) -> list:
    # No reuse options: with them another process on the node could listen on our port as well.
    sockets = [socket.socket(socket.AF_INET)]
    try:
        sockets[0].bind(("0.0.0.0", port))
        try:
            sockets.append(socket.socket(socket.AF_INET6))
            sockets[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sockets[1].bind(("::", port))
        except OSError as fault:
            if fault.errno not in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            for unusable in sockets[1:]:
                unusable.close()
            del sockets[1:]
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


class Door:
    """Lets connections in while there are places for unproven ones; the others wait in the kernel's backlog.

    A newcomer gets the place of the oldest that is no longer young, so idle connections lock nobody out.
    """

    def __init__(self, front: "Front", sockets: list) -> None:
        self._front = front
        self._sockets = sockets
        self._loop = asyncio.get_event_loop()
        self._unproven = collections.OrderedDict()
        self._held = None
        self._entering = set()
        for listener in sockets:
            listener.setblocking(False)
            listener.listen(BACKLOG)
        self._open()

    def _open(self) -> None:
        self._held = None
        for listener in self._sockets:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _hold(self, pause_s: float) -> None:
        self._stop_accepting()
        self._held = self._loop.call_later(pause_s, self._open)

    def _stop_accepting(self) -> None:
        if self._held is not None:
            self._held.cancel()
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            wait_s = self._make_room()
            if wait_s > 0:
                self._hold(wait_s)
                return
            try:
                link, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._hold(NO_DESCRIPTOR_PAUSE_S)
                return
            self._enter(link)

    def _make_room(self) -> float:
        """Seconds until there may be room for one more; 0 where there is now."""
        if len(self._unproven) < MAX_UNPROVEN:
            return 0
        oldest, since = next(iter(self._unproven.items()))
        wait_s = since + YOUNG_S - self._loop.time()
        if wait_s <= 0:
            oldest.refuse("busy")
        return wait_s

    def _enter(self, link: socket.socket) -> None:
        handshake = Handshake(self._front, self)
        self._unproven[handshake] = self._loop.time()
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: handshake, link))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    def left(self, handshake: "Handshake") -> None:
        """A connection is no longer an unproven one."""
        self._unproven.pop(handshake, None)
        if self._held is not None:
            self._held.cancel()
            self._open()

    def close(self) -> None:
        self._stop_accepting()
        for listener in self._sockets:
            listener.close()


class Front:
    """What all connections share: the secrets, the way to the service, and its state."""

    def __init__(self, instance: str, generation: int, service: AnyService, gpus: "Gpus") -> None:
        self.instance = instance
        self.generation = generation
        self.service = service
        self.gpus = gpus
        self.gate_secret = secrets.token_hex(32)
        self.control_secret = secrets.token_hex(32)
        self.state = SERVING
        self.ready = False
        self.fault = "not yet probed"
        self.served = asyncio.Event()
        self.alive = True
        self.death = ""
        self.open = set()
        self.watchers = set()
        self.joining = set()
        self._loop = asyncio.get_event_loop()
        self._started_at = self._loop.time()
        self._stopping = False

    def proof(self, speaker: str, role: str, client_nonce: str, agent_nonce: str) -> str:
        secret = self.control_secret if role == CONTROL else self.gate_secret
        return mac(secret, speaker, role, self.instance, self.generation, client_nonce, agent_nonce)

    def join(self, handshake: "Handshake", surplus: bytes) -> None:
        """Connects a proven data connection to the service."""
        task = self._loop.create_task(self._join(handshake, surplus))
        self.joining.add(task)
        task.add_done_callback(self.joining.discard)

    async def _join(self, handshake: "Handshake", surplus: bytes) -> None:
        try:
            link = await self.service.connect()
            await self._loop.create_connection(lambda: ServiceHalf(self, handshake, surplus), sock=link)
        except (ServiceDown, OSError):
            handshake.refuse("service")

    def left(self, half: "Half") -> None:
        """A proven data connection has ended."""
        self.open.discard(half)
        if self.state == DRAINING and not self.open:
            self.tell_watchers()

    def want(self, state: str) -> None:
        """Drain, or serve again; once the agent stops, there is no way back."""
        if state != self.state and not self._stopping:
            self.state = state
            say(f"{state}, {len(self.open)} open")
            self.tell_watchers()

    def stop(self) -> None:
        self.want(DRAINING)
        self._stopping = True

    def found(self, ready: bool, fault: str) -> None:
        """Takes the readiness probe's finding."""
        self.fault = fault
        if ready != self.ready:
            self.ready = ready
            say("ready" if ready else f"unready: {fault}")
            self.tell_watchers()
        if ready:
            self.served.set()

    def lives(self, alive: bool, fault: str) -> None:
        """Takes the liveness probe's finding."""
        self.death = "" if alive else fault
        if alive != self.alive:
            self.alive = alive
            say("alive again" if alive else fault)

    def summary(self) -> dict:
        return {"state": self.state, "ready": self.ready, "open": len(self.open)}

    def status(self) -> dict:
        status = self.summary()
        status["gpus"] = self.gpus.newest()
        status["uptime_s"] = round(self._loop.time() - self._started_at, 3)
        status["alive"] = self.alive
        status["served"] = self.served.is_set()
        status["fault"] = self.death or self.fault
        return status

    def tell_watchers(self) -> None:
        for watcher in list(self.watchers):
            watcher.tell()

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self.tell_watchers()

    async def finish(self, patience_s: float) -> None:
        """Lets data that the service has already given leave for the clients."""
        deadline = self._loop.time() + patience_s
        while self.open and self._loop.time() < deadline:
            for client in list(self.open):
                if client.other.ended:
                    client.transport.close()
            await asyncio.sleep(0.02)
        for task in list(self.joining):
            task.cancel()


class Handshake(asyncio.Protocol):
    """A connection that has proven nothing yet: it may say two short lines, soon."""

    transport: Any = None

    def __init__(self, front: Front, door: Door) -> None:
        self._front = front
        self._door = door
        self._received = b""
        self._budget = HANDSHAKE_BYTES
        self._role = self._client_nonce = ""
        self._agent_nonce = new_nonce()
        self._settled = False
        self._deadline = asyncio.get_event_loop().call_later(HANDSHAKE_S, self.refuse, "protocol")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self._settled:
            transport.abort()

    def connection_lost(self, exc) -> None:
        self._settle()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while not self._settled:
            line, newline, rest = self._received.partition(b"\n")
            if len(line) >= self._budget:
                self.refuse("protocol")
            elif not newline:
                return
            else:
                self._budget -= len(line) + 1
                self._received = rest
                (self._take_proof if self._role else self._take_hello)(line)

    def _take_hello(self, line: bytes) -> None:
        words = line.decode("ascii", "replace").split(" ")
        if words[0] != "saia" or len(words) < 2:
            self.refuse("protocol")
        elif words[1] != str(PROTOCOL):
            self.refuse("version")
        elif len(words) != 4 or words[2] not in ROLES or not NONCE.fullmatch(words[3]):
            self.refuse("protocol")
        else:
            self._role, self._client_nonce = words[2:]
            self.transport.write(nonce_line(self._agent_nonce))

    def _take_proof(self, line: bytes) -> None:
        if not hmac.compare_digest(line + b"\n", self._proof(CLIENT)):
            self.refuse("proof")
        elif self._role == DATA and self._front.state == DRAINING:
            self.refuse("draining")
        elif self._role == DATA:
            # Our proof comes only with a way to the service: a refusal means that nothing was taken.
            self._settle()
            self.transport.pause_reading()
            self._front.join(self, self._received)
        else:
            self.accept()
            follower = (Watch if self._role == WATCH else Control)(self._front, self.transport)
            self.transport.set_protocol(follower)
            if self._received:
                follower.data_received(self._received)

    def _proof(self, speaker: str) -> bytes:
        return proof_line(self._front.proof(speaker, self._role, self._client_nonce, self._agent_nonce))

    def accept(self) -> None:
        """Gives our own proof: from here on the connection is the role's."""
        self._settle()
        keep_alive(self.transport)
        self.transport.write(self._proof(AGENT))

    def refuse(self, code: str) -> None:
        self._settle()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(refusal_line(code))
            self.transport.close()

    def _settle(self) -> None:
        self._settled = True
        self._deadline.cancel()
        self._door.left(self)


def keep_alive(transport: Any) -> None:
    """Notices within a minute that the other host is gone, so that it does not count as open for ever."""
    link = transport.get_extra_info("socket")
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        pass  # already reset: its connection_lost is on the way


class Half(asyncio.Protocol):
    """One side of a data connection: what it reads, the other side writes."""

    transport: Any
    other: "Half"

    def __init__(self) -> None:
        self.ended = False
        self.held = False

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Passes the end of one direction on; the connection lives until both have ended."""
        self.ended = True
        if self.other.ended:
            self.other.transport.close()
            return False
        try:
            self.other.transport.write_eof()
        except OSError:
            self.other.transport.abort()
        return True

    def pause_writing(self) -> None:
        other = self.other
        if not (other.held or other.ended or other.transport.is_closing()):
            other.held = True
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        other = self.other
        if other.held:
            other.held = False
            if not other.transport.is_closing():
                other.transport.resume_reading()

    def connection_lost(self, exc) -> None:
        if exc is None:
            self.other.transport.close()
        else:
            self.other.reset()

    def reset(self) -> None:
        """An error on one side must not look like a clean end on the other."""
        if not self.transport.is_closing():
            try:
                link = self.transport.get_extra_info("socket")
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        self.transport.abort()


class ClientHalf(Half):
    def __init__(self, front: Front) -> None:
        super().__init__()
        self._front = front

    def connection_lost(self, exc) -> None:
        super().connection_lost(exc)
        self._front.left(self)


class ServiceHalf(Half):
    """The side of the service; once it is connected, the client's connection is accepted."""

    def __init__(self, front: Front, handshake: Handshake, surplus: bytes) -> None:
        super().__init__()
        self._front = front
        self._handshake = handshake
        self._surplus = surplus

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        client = ClientHalf(self._front)
        client.transport, client.other = self._handshake.transport, self
        self.other = client
        if self._front.state == DRAINING:
            self._handshake.refuse("draining")
        if client.transport.is_closing():
            transport.abort()
            return
        self._front.open.add(client)
        client.transport.set_protocol(client)
        self._handshake.accept()
        if self._surplus:
            transport.write(self._surplus)
        client.transport.resume_reading()


class Lines(asyncio.Protocol):
    """A proven connection that speaks JSON lines."""

    def __init__(self, front: Front, transport: Any) -> None:
        self._front = front
        self._transport = transport

    def send(self, content: dict) -> None:
        self._transport.write(json.dumps(content, separators=(",", ":")).encode() + b"\n")
        if self._transport.get_write_buffer_size() > UNREAD_MAX:
            self._transport.abort()


class Watch(Lines):
    """Tells a gate what may be sent here."""

    def __init__(self, front: Front, transport: Any) -> None:
        super().__init__(front, transport)
        front.watchers.add(self)
        self.tell()

    def tell(self) -> None:
        self.send(self._front.summary())

    def connection_lost(self, exc) -> None:
        self._front.watchers.discard(self)


class Control(Lines):
    """Takes the engine's wish and answers with the whole status."""

    _received = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            if self._transport.is_closing():
                return
            self._answer(line)
        if len(self._received) > LINE_MAX:
            self._transport.abort()

    def _answer(self, line: bytes) -> None:
        try:
            wanted = json.loads(line.decode("utf-8"))["want"]
        except (ValueError, KeyError, TypeError, RecursionError):
            wanted = None
        if wanted not in (SERVING, DRAINING):
            self._transport.abort()
            return
        self._front.want(wanted)
        self.send(self._front.status())


# ---------------------------------------------------------------- probes

UNREADY_INTERVAL_S = 0.5
ANSWER_MAX = 65536
REST_S = 0.5


async def watch_readiness(front: Front, probe: Probe) -> None:
    """Keeps `front` told whether the service can work."""
    failures = 0
    while True:
        fault = await ask(front.service, probe)
        failures = failures + 1 if fault else 0
        front.found(not fault or (front.ready and failures < probe.failures), fault)
        await asyncio.sleep(probe.interval_s if front.ready else min(probe.interval_s, UNREADY_INTERVAL_S))


async def watch_liveness(front: Front, probe: Probe) -> None:
    """Keeps `front` told whether the service, once it was ready, still lives."""
    await front.served.wait()
    failures = 0
    while True:
        await asyncio.sleep(probe.interval_s)
        fault = await ask(front.service, probe)
        failures = failures + 1 if fault else 0
        front.lives(failures < probe.failures, f"liveness probe failed {failures} times in a row: {fault}")


async def ask(service: AnyService, probe: Probe) -> str:
    """What speaks against the service, past the front; empty if nothing does."""
    service.doubt()
    try:
        return await asyncio.wait_for(_ask(service, probe), probe.timeout_s)
    except asyncio.TimeoutError:
        return f"no answer to {probe.path} within {probe.timeout_s:g} s"


async def _ask(service: AnyService, probe: Probe) -> str:
    try:
        link = await service.connect()
        reader, writer = await asyncio.open_connection(sock=link)
    except (ServiceDown, OSError) as fault:
        return str(fault)
    try:
        return await put_question(reader, writer, probe)
    finally:
        writer.transport.abort()


async def put_question(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, probe: Any) -> str:
    """Asks over a fresh connection, and says what speaks against the answer; empty if nothing does.

    `probe` has kind, path and model; the caller sets the deadline and closes the connection.
    """
    writer.write(question(probe.kind, probe.path, probe.model))
    try:
        first = await reader.readline()
        match = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", first)
        if match is None:
            return f"{probe.path} gave no HTTP answer"
        status = int(match.group(1))
        if 200 <= status < 300 and probe.kind == COMPLETION:
            return judge_completion(await read_body(reader, first), probe.path)
        await read_rest(reader)
    except (OSError, ValueError) as fault:
        return f"{probe.path}: {fault}"
    return "" if 200 <= status < 300 else f"{probe.path} answered {status}"


def question(kind: str, path: str, model: str) -> bytes:
    """The bytes of a probe's request."""
    head, body = f"GET {path} HTTP/1.1\r\n", b""
    if kind == COMPLETION:
        content = {"model": model, "max_tokens": 1}
        # A base model has no chat; its path takes a prompt.
        chat = path.endswith("/chat/completions")
        content.update({"messages": [{"role": "user", "content": "Hi"}]} if chat else {"prompt": "Hi"})
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head += "Host: localhost\r\nUser-Agent: saia-agent\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def read_rest(reader: asyncio.StreamReader) -> None:
    """A server whose answer is not read to its end logs an error; one may also keep the connection open."""
    try:
        await asyncio.wait_for(reader.readexactly(ANSWER_MAX), REST_S)
    except (asyncio.IncompleteReadError, asyncio.TimeoutError):
        pass


async def read_body(reader: asyncio.StreamReader, received: bytes) -> bytes:
    """The body of an answer that began with `received`. Raises ValueError where it can't be had."""
    while len(received) <= ANSWER_MAX:
        chunk = await reader.read(ANSWER_MAX + 1 - len(received))
        received += chunk
        body = whole_body(received, not chunk)
        if body is not None:
            return body
        if not chunk:
            raise ValueError("the answer ended in its middle")
    raise ValueError(f"the answer is longer than {ANSWER_MAX} bytes")


class _Received:
    """What http.client takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def whole_body(received: bytes, ended: bool) -> Union[bytes, None]:
    """The body of an HTTP answer, None while there is more to come. Raises ValueError."""
    if b"\r\n\r\n" not in received:
        return None
    answer = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]
    try:
        answer.begin()
        if answer.length is None and not answer.chunked and not ended:
            return None
        return answer.read()
    except http.client.IncompleteRead:
        return None
    except (http.client.HTTPException, OSError) as fault:
        raise ValueError(f"no HTTP answer: {fault!r}") from None


def judge_completion(body: bytes, path: str) -> str:
    """What speaks against a completion; empty if nothing does."""
    try:
        answer = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return f"{path} answered no JSON"
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return "" if isinstance(choices, list) and choices else f"{path} answered without choices"


# ---------------------------------------------------------------- GPUs

GPU_INTERVAL_S = 10.0
GPU_DEADLINE_S = 5.0
GPU_QUERY = ("--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


class Gpus:
    """The newest word of nvidia-smi, asked in the background; no word means unknown."""

    def __init__(self, environment: dict) -> None:
        self._environment = environment
        self._loop = asyncio.get_event_loop()
        self._found = []
        self._next_at = 0.0
        self._asking = None

    def newest(self) -> list:
        if self._asking is None and self._loop.time() >= self._next_at:
            self._next_at = self._loop.time() + GPU_INTERVAL_S
            self._ask()
        return self._found

    def _ask(self) -> None:
        program = shutil.which("nvidia-smi", path=self._environment.get("PATH", os.defpath))
        if program is None:
            self._found = []
            return
        try:
            self._asking = subprocess.Popen(
                (program, *GPU_QUERY),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._found = []
            return
        threading.Thread(target=self._wait, args=(self._asking,), daemon=True).start()

    def _wait(self, process) -> None:
        found = []
        try:
            output, _ = process.communicate(timeout=GPU_DEADLINE_S)
            if process.returncode == 0:
                found = parse_gpus(output)
        except subprocess.TimeoutExpired:
            self._kill(process)
        try:
            self._loop.call_soon_threadsafe(self._take, found)
        except RuntimeError:
            pass  # the agent is ending

    def _take(self, found: list) -> None:
        self._found = found
        self._asking = None

    @staticmethod
    def _kill(process) -> None:
        kill_group(process.pid, signal.SIGKILL)
        process.poll()

    def close(self) -> None:
        if self._asking is not None:
            self._kill(self._asking)


def parse_gpus(output: bytes) -> list:
    """The rows of nvidia-smi; a figure it does not know is None, a row without an index is left out."""
    gpus = []
    for line in output.decode("ascii", "replace").splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and re.fullmatch("[0-9]{1,3}", cells[0]):
            utilisation, used, total = (_figure(cell) for cell in cells[1:])
            gpus.append(
                {
                    "index": int(cells[0]),
                    "utilisation": utilisation,
                    "memory_used": used,
                    "memory_total": total,
                }
            )
    return gpus


def _figure(cell: str):
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


# ---------------------------------------------------------------- the service's process and the whole

TOGETHER_S = 0.25
"""Slurm's SIGTERM reaches service and agent at once; so long after the service's end we wait for ours."""
FLUSH_S = 2.0
DEATH_S = 1.5
OPEN_FILES_MAX = 65536


def raise_open_files() -> tuple:
    """Raises our own soft limit of open files; returns the limits as they were."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = before
    goal = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < goal:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return before


def kill_group(group: int, signal_number: int) -> None:
    """Signals a process group, if it is still there."""
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        pass


def group_lives(group: int) -> bool:
    """Whether a process of the group still runs; one that is only not yet reaped does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member_of = stat.read_bytes().rpartition(b") ")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(member_of) == group and state not in (b"Z", b"X"):
            return True
    return False


def start_service(launch: Launch, service: AnyService, directory: Path, environment: dict, limits: tuple):
    """Starts the service as a process group of its own. Raises StartFault."""
    if launch.command:
        command = [word.replace(service.placeholder, service.address) for word in launch.command]
    else:
        command = ["/bin/sh", "-c", launch.script]

    def prepare() -> None:
        # A group but no session of its own: whoever ends the job's session finds the service too.
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    try:
        return subprocess.Popen(
            [_bytes(word) for word in command],
            cwd=str(directory),
            env={_bytes(name): _bytes(value) for name, value in environment.items()},
            stdin=subprocess.DEVNULL,
            preexec_fn=prepare,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as fault:
        code = 127 if isinstance(fault, FileNotFoundError) else 126
        raise StartFault(f"can't start the service: {fault}", code) from None


def _bytes(text: str) -> bytes:
    # In a job without LANG, Python 3.6 would know ASCII only.
    return text.encode("utf-8", "surrogateescape")


class Agent:
    """One run of the service, from its start to the exit record."""

    def __init__(self, directory: Path, launch: Launch, generation: int, lifeline: int) -> None:
        self._directory = directory
        self._launch = launch
        self._generation = generation
        self._lifeline = lifeline
        self._loop = asyncio.get_event_loop()
        self._exited = self._loop.create_future()
        self._asked_to_stop = self._loop.create_future()
        self._grace_s = launch.stop_grace_s
        self._group = 0

    async def run(self) -> int:
        """Runs the service to its end; returns the exit code to pass on."""
        self._listen_for_the_end()
        try:
            result = await self._serve()
        except StartFault as fault:
            say(str(fault))
            result = fault.exit_code
        code = result if result >= 0 else 128 - result
        self._write(
            exit_name(self._generation),
            exit_code=code,
            signal=None if result >= 0 else -result,
            stopped_by="term" if self._asked_to_stop.done() else "service",
            at=time.time(),
        )
        return code

    async def _serve(self) -> int:
        """Runs the service to its end; returns its code, or minus the signal that ended it."""
        limits = raise_open_files()
        sockets = bind_front(*self._launch.port_range)
        service = SocketService() if self._launch.listen == "socket" else PortService()
        environment = self._environment(service)
        gpus = Gpus(environment)
        front = Front(self._launch.instance, self._generation, service, gpus)
        door = Door(front, sockets)
        try:
            process = start_service(self._launch, service, self._directory, environment, limits)
            self._group = process.pid
            threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()
            try:
                self._announce(front, sockets[0].getsockname()[1])
                return await self._until_the_end(front)
            finally:
                kill_group(self._group, signal.SIGKILL)
        finally:
            door.close()
            gpus.close()
            service.remove()

    def _environment(self, service: AnyService) -> dict:
        environment = dict(os.environ)
        for name in ("SAIA_SOCKET", "SAIA_PORT", "SAIA_LIFELINE_FD"):
            environment.pop(name, None)
        environment.update(self._launch.environment)
        environment["SAIA_INSTANCE"] = self._launch.instance
        environment["SAIA_SERVICE"] = self._launch.service
        environment[service.variable] = service.address
        return environment

    def _announce(self, front: Front, port: int) -> None:
        done = self._write(
            endpoint_name(self._generation),
            protocol=PROTOCOL,
            host=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            port=port,
            gate_secret=front.gate_secret,
            control_secret=front.control_secret,
            written_at=time.time(),
        )
        if not done:
            raise StartFault("nobody could find this instance without its endpoint file")
        say(f"front listens on port {port}, the service on {front.service.address}")

    def _write(self, name: str, **content) -> bool:
        head = {"version": FILE_VERSION, "instance": self._launch.instance, "generation": self._generation}
        try:
            write_record(self._directory, name, dict(head, **content))
        except OSError as fault:
            say(f"can't write {name}: {fault}")
            return False
        return True

    async def _until_the_end(self, front: Front) -> int:
        helpers = [
            self._loop.create_task(front.beat()),
            self._loop.create_task(watch_readiness(front, self._launch.readiness)),
        ]
        if self._launch.liveness is not None:
            helpers.append(self._loop.create_task(watch_liveness(front, self._launch.liveness)))
        try:
            await asyncio.wait([self._exited, self._asked_to_stop], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([self._asked_to_stop], timeout=TOGETHER_S)
            front.stop()
            result = await self._stop_service()
            await front.finish(min(FLUSH_S, self._grace_s))
            return result
        finally:
            for helper in helpers:
                helper.cancel()

    async def _stop_service(self) -> int:
        if self._asked_to_stop.done():
            kill_group(self._group, signal.SIGTERM)
            deadline = self._loop.time() + self._grace_s
            await asyncio.wait([self._exited], timeout=self._grace_s)
            # A shell that ran a script dies at once; what it started may still be finishing.
            while group_lives(self._group) and self._loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        kill_group(self._group, signal.SIGKILL)
        await asyncio.wait([self._exited], timeout=DEATH_S)
        result = self._exited.result() if self._exited.done() else -signal.SIGKILL
        say(f"the service ended with {f'code {result}' if result >= 0 else f'signal {-result}'}")
        return result

    def _wait_for(self, process) -> None:
        result = process.wait()
        try:
            self._loop.call_soon_threadsafe(self._exited.set_result, result)
        except RuntimeError:
            pass  # gave up on a process that would not die

    def _listen_for_the_end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._ask_to_stop)
        if self._lifeline >= 0:
            os.set_inheritable(self._lifeline, False)
            self._loop.add_reader(self._lifeline, self._read_lifeline)

    def _ask_to_stop(self) -> None:
        if not self._asked_to_stop.done():
            self._asked_to_stop.set_result(None)

    def _read_lifeline(self) -> None:
        if not os.read(self._lifeline, 4096):
            self._loop.remove_reader(self._lifeline)
            self._grace_s = 0
            self._ask_to_stop()
            if self._group:
                kill_group(self._group, signal.SIGKILL)


def read_lifeline(environment: dict) -> int:
    """The descriptor whose end of file ends us; -1 for none."""
    text = environment.get("SAIA_LIFELINE_FD", "")
    if not text:
        return -1
    try:
        os.fstat(int(text))
    except (ValueError, OverflowError, OSError):
        raise LaunchFault("SAIA_LIFELINE_FD must be an open file descriptor") from None
    return int(text)


def main(argv: list) -> int:
    """Runs the agent of one instance directory; returns its exit code."""
    try:
        if len(argv) != 1:
            raise LaunchFault("usage: python3 agent.py <instance directory>")
        directory = Path(argv[0]).absolute()
        launch = read_launch(directory)
        generation = read_generation(dict(os.environ))
        lifeline = read_lifeline(dict(os.environ))
    except LaunchFault as fault:
        say(str(fault))
        return EXIT_USAGE
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(Agent(directory, launch, generation, lifeline).run())


if __name__ == "__main__":
    # Threads may still hang on a process that can't die: leave without them.
    sys.stderr.flush()
    os._exit(main(sys.argv[1:]))
