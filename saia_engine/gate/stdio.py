"""Our stdin and stdout as a transport: pipes or sockets, one or two, as sshd made them."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

READ_SIZE = 256 * 1024
HIGH_WATER, LOW_WATER = 1024 * 1024, 256 * 1024


class Receiver(Protocol):
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, why: str) -> None: ...


class Stdio:
    """Owns the readiness callbacks of two descriptors, but not the descriptors."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver
        self._buffer = bytearray()
        self._paused = False
        self._closed = False

    def start(self, receiver: Receiver) -> None:
        """Raises OSError for descriptors that can't be waited for, such as files."""
        self._receiver = receiver
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._loop.add_reader(self._read_fd, self._read)

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        if not self._buffer:
            sent = self._send(data)
            if sent == len(data) or self._closed:
                return
            data = data[sent:]
            self._loop.add_writer(self._write_fd, self._write_more)
        self._buffer += data
        if len(self._buffer) > HIGH_WATER and not self._paused:
            self._paused = True
            self._receiver.pause_writing()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._read_fd)
            self._loop.remove_writer(self._write_fd)

    def _read(self) -> None:
        try:
            data = os.read(self._read_fd, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._lost(f"reading failed: {exc.strerror}")
            return
        if data:
            self._receiver.data_received(data)
        else:
            self._lost("the peer closed the connection")

    def _write_more(self) -> None:
        sent = self._send(bytes(self._buffer[:READ_SIZE]))
        del self._buffer[:sent]
        if not self._buffer:
            self._loop.remove_writer(self._write_fd)
        if self._paused and len(self._buffer) <= LOW_WATER:
            self._paused = False
            self._receiver.resume_writing()

    def _send(self, data: bytes) -> int:
        try:
            return os.write(self._write_fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            self._lost(f"writing failed: {exc.strerror}")
            return 0

    def _lost(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._receiver.connection_lost(why)
