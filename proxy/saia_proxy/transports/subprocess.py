"""A gate as our own child process: the demo, and sites where proxy and gate share a host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import cast

from saia_proxy.transports import LIFELINE, VERB, Connect, Link, MakeMux, Trouble, Unusable

KILL_AFTER_S = 2.0


EndSaid = Callable[[int | None, bytes], Unusable | None]
"""From its exit status and the end of its stderr: what is the matter, where that is not the gate's own end."""


def connector(
    command: Sequence[str],
    *,
    check: Callable[[], None] = lambda: None,
    trouble: EndSaid = lambda status, said: None,
    connect_s: float = 0.0,
) -> Connect:
    """Spawns `command` as sshd would; the verb is in SSH_ORIGINAL_COMMAND where it is not its last word.

    `check` is asked before each start; it raises Unusable. `connect_s` is what the command may take to connect.
    """

    async def connect(make_mux: MakeMux) -> Link:
        check()
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        if command[-1] != VERB:
            environment["SSH_ORIGINAL_COMMAND"] = VERB
        lifeline = os.environ.get(LIFELINE)
        if lifeline is not None:
            environment[LIFELINE] = lifeline
        link = _ChildLink(make_mux, trouble)
        link.connect_s = connect_s
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: _Child(link),
                *command,
                env=environment,
                pass_fds=(int(lifeline),) if lifeline else (),
                start_new_session=True,  # a signal to our group must not end it before open requests do
            )
        except OSError as exc:
            raise Unusable(Trouble.LOCAL, f"cannot run {command[0]}: {exc.strerror or exc}") from None
        return link

    return connect


class _ChildLink(Link):
    transport: asyncio.SubprocessTransport
    exited: asyncio.Future[None]

    def __init__(self, make_mux: MakeMux, trouble: EndSaid) -> None:
        super().__init__(make_mux)
        self._trouble = trouble

    def end(self) -> Unusable:
        return self._trouble(self.exit_status, self.stderr) or super().end()

    async def close(self) -> None:
        self.mux.close("closed by the proxy")
        stdin = self.transport.get_pipe_transport(0)
        if stdin is not None:
            stdin.close()
        await asyncio.wait([self.exited], timeout=KILL_AFTER_S)
        self.transport.close()  # kills what is still there


class _Child(asyncio.SubprocessProtocol):
    def __init__(self, link: _ChildLink) -> None:
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        process = cast(asyncio.SubprocessTransport, transport)
        stdin = cast(asyncio.WriteTransport, process.get_pipe_transport(0))
        self._link.transport = process
        self._link.exited = asyncio.get_running_loop().create_future()
        self._link.start(lambda data: None if stdin.is_closing() else stdin.write(data))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._link.mux.data_received(data)
        else:
            self._link.keep_stderr(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._link.output_ended()

    def pause_writing(self) -> None:
        self._link.mux.pause_writing()

    def resume_writing(self) -> None:
        self._link.mux.resume_writing()

    def process_exited(self) -> None:
        self._link.exit_status = self._link.transport.get_returncode()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._link.exited.done():
            self._link.exited.set_result(None)
        self._link.ended()
