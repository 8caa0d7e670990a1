"""A gate behind sshd, reached with the one restricted key and a pinned host key; nothing of ~/.ssh is read."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import asyncssh
from asyncssh.constants import MSG_IGNORE

from saia_engine.edge.text import plain
from saia_proxy.transports import VERB, Connect, Link, MakeMux, Trouble, Unusable
from saia_proxy.transports.files import unreadable

WINDOW = 8 * 1024 * 1024
"""Bytes that the gate may send ahead of us; the mux's own credit keeps each stream bounded."""
KEEPALIVE_S = 5
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
"""The cheapest first: a small packet costs 8 µs with AES-GCM, 39 with ChaCha20-Poly1305 (which asyncssh prefers)."""
CLOSE_WAIT_S = 2.0

logging.getLogger("asyncssh").setLevel(logging.WARNING)

T = TypeVar("T")


def connector(*, host: str, port: int, user: str, key: str, known_hosts: str, timeout_s: float) -> Connect:
    """Connects with public key authentication only; the host's key must be in the file `known_hosts`."""

    async def connect(make_mux: MakeMux) -> Link:
        where = f"{user}@{host}:{port}"
        keys, hosts = _load(key, known_hosts)
        try:
            connection = await asyncssh.connect(
                host,
                port,
                username=user,
                client_keys=keys,
                known_hosts=hosts,
                config=None,
                agent_path=None,
                preferred_auth="publickey",
                gss_kex=False,
                gss_auth=False,
                x509_trusted_certs=None,
                compression_algs=None,
                encryption_algs=CIPHERS,
                connect_timeout=timeout_s,
                login_timeout=timeout_s,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=3,
            )
        except (OSError, asyncssh.Error, TimeoutError) as exc:
            raise _trouble(exc, where, key, known_hosts) from None
        _without_ignored_packets(connection)
        link = _SshLink(make_mux, connection)
        try:
            async with asyncio.timeout(timeout_s):
                await connection.create_session(
                    lambda: _Session(link), VERB, encoding=None, window=WINDOW, request_pty=False
                )
        except (OSError, asyncssh.Error, TimeoutError) as exc:
            await link.close()
            raise _trouble(exc, where, key, known_hosts) from None
        except BaseException:
            connection.abort()
            raise
        return link

    return connect


def _without_ignored_packets(connection: asyncssh.SSHClientConnection) -> None:
    """asyncssh puts an empty packet before each one, against attacks on CBC: a cipher of a kind that we never use."""
    send = connection.send_packet

    def send_packet(pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != MSG_IGNORE:
            send(pkttype, *args, handler=handler)

    connection.send_packet = send_packet


class _SshLink(Link):
    def __init__(self, make_mux: MakeMux, connection: asyncssh.SSHClientConnection) -> None:
        super().__init__(make_mux)
        self._connection = connection

    async def close(self) -> None:
        if hasattr(self, "mux"):
            self.mux.close("closed by the proxy")
        self._connection.close()
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._connection.wait_closed()
        except TimeoutError:
            self._connection.abort()


class _Session(asyncssh.SSHClientSession[bytes]):
    def __init__(self, link: _SshLink) -> None:
        self._link = link
        self._channel: asyncssh.SSHClientChannel[bytes]

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._link.start(self._write)

    def _write(self, data: bytes) -> None:
        if not self._channel.is_closing():
            self._channel.write(data)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is None:
            self._link.mux.data_received(data)
        else:
            self._link.keep_stderr(data)

    def pause_writing(self) -> None:
        self._link.mux.pause_writing()

    def resume_writing(self) -> None:
        self._link.mux.resume_writing()

    def exit_status_received(self, status: int) -> None:
        self._link.exit_status = status

    def eof_received(self) -> bool:
        self._link.output_ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not hasattr(self._link, "mux"):
            return
        if exc is None:
            self._link.ended()
        else:
            self._link.mux.connection_lost(f"the SSH connection was lost: {plain(exc, 200)}")


def _load(key: str, known_hosts: str) -> tuple[list[asyncssh.SSHKey], asyncssh.SSHKnownHosts]:
    """Read again at each connection, so that a corrected file counts. Raises Unusable."""
    return (
        [_read(asyncssh.read_private_key, key, "private key")],
        _read(asyncssh.read_known_hosts, known_hosts, "known_hosts file"),
    )


def _read(reader: Callable[[str], T], path: str, what: str) -> T:
    try:
        return reader(path)
    except OSError as exc:
        raise Unusable(Trouble.LOCAL, unreadable(path, what, exc)) from None
    except (ValueError, asyncssh.KeyImportError) as exc:
        raise Unusable(Trouble.LOCAL, f"the {what} {path} is of no use: {plain(exc, 200)}") from None


def _trouble(exc: BaseException, where: str, key: str, known_hosts: str) -> Unusable:
    reason = plain(exc, 300)
    if isinstance(exc, asyncssh.PermissionDenied):
        text = f"{where} does not accept {key}; is its line (saia-engine gate-key) in authorized_keys there?"
        return Unusable(Trouble.KEY_REFUSED, text)
    if isinstance(exc, asyncssh.HostKeyNotVerifiable) or "host key" in reason.lower():
        text = f"the key that {where} shows is not the one pinned in {known_hosts} ({reason})"
        return Unusable(Trouble.HOST_KEY, text)
    if isinstance(exc, TimeoutError):
        return Unusable(Trouble.UNREACHABLE, f"{where} did not answer in time")
    if isinstance(
        exc, asyncssh.ConnectionLost | ConnectionResetError
    ):  # also what a host does that has no key of the pinned kind
        text = f"{where} closed the connection; has it a host key of the kind pinned in {known_hosts}?"
        return Unusable(Trouble.UNREACHABLE, text)
    if isinstance(exc, asyncssh.ChannelOpenError):
        return Unusable(Trouble.GATE_REFUSED, f"{where} opened no session: {reason}")
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno in errno.errorcode:
        reason = exc.strerror or reason
    return Unusable(Trouble.UNREACHABLE, f"{where}: {reason}")
