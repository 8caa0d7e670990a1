"""A service that is slow, large or watchful as its path says, and notes what happens to its connections.

    python paced_service.py --uds PATH

Speaks just enough HTTP by hand. Lines of JSON in `events`, in its working directory, say what it saw and when
(CLOCK_MONOTONIC, which all processes of a machine share).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import sys
import time
from base64 import b64encode
from pathlib import Path

PIECE = 256 * 1024
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
numbers = itertools.count(1)


def note(what: str, path: str, **more: object) -> None:
    with Path("events").open("a") as events:
        events.write(json.dumps({"what": what, "path": path, "at": time.monotonic(), **more}) + "\n")


def content(size: int) -> bytes:
    """The bytes of one piece; each piece of a blob is the same."""
    return bytes(range(256)) * (size // 256) + bytes(size % 256)


async def serve(reader: Reader, writer: Writer) -> None:
    number = next(numbers)
    try:
        while head := await read_head(reader):
            await answer(head, number, reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def read_head(reader: Reader) -> list[str]:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return []


async def answer(head: list[str], number: int, reader: Reader, writer: Writer) -> None:
    path = head[0].split(" ")[1]
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:]}
    match path.partition("?")[0].split("/")[2:]:
        case ["wait"]:
            note("began", path)
            await gone(reader, path)
        case ["trickle", pieces, interval_ms]:
            await until_gone(trickle(writer, int(pieces), int(interval_ms) / 1000), reader, path)
        case ["told"]:
            await until_gone(trickle(writer, None, 0.02), reader, path)
        case ["blob", size]:
            await blob(writer, int(size), path)
        case ["digest"]:
            await digest(reader, writer, headers, path)
        case ["raw"]:
            await raw(reader, writer, headers)
        case _:
            whole(writer, str(number).encode())


def whole(writer: Writer, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def gone(reader: Reader, path: str) -> None:
    """Notes when the other side is."""
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass
    note("gone", path)


async def until_gone(work, reader: Reader, path: str) -> None:
    watching = asyncio.create_task(gone(reader, path))
    working = asyncio.create_task(work)
    await asyncio.wait([watching, working], return_when=asyncio.FIRST_COMPLETED)
    for task in (watching, working):
        task.cancel()
    await asyncio.gather(watching, working, return_exceptions=True)


async def trickle(writer: Writer, pieces: int | None, interval_s: float) -> None:
    """Each line says when it was written. Without a number it goes on until there is a file `finish`."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(pieces) if pieces is not None else iter(Path("finish").exists, True):
        line = b"%.6f\n" % time.monotonic()
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        await writer.drain()
        await asyncio.sleep(interval_s)
    writer.write(b"0\r\n\r\n")


async def blob(writer: Writer, size: int, path: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    piece, sent = content(PIECE), 0
    try:
        while sent < size:
            writer.write(piece[: size - sent])
            sent = min(size, sent + PIECE)
            await writer.drain()
    finally:
        note("sent", path, bytes=sent)


async def digest(reader: Reader, writer: Writer, headers: dict[str, str], path: str) -> None:
    """Reads a body as it comes; notes its beginning."""
    seen, size = hashlib.sha256(), 0
    try:
        async for part in body(reader, headers):
            seen.update(part)
            if size < 1 << 20 <= size + len(part):
                note("first MiB", path)
            size += len(part)
    except (OSError, asyncio.IncompleteReadError):
        note("gone", path)
        raise
    whole(writer, f"{size} {seen.hexdigest()}".encode())


async def body(reader: Reader, headers: dict[str, str]):
    left = int(headers.get("content-length", 0))
    while left:
        part = await reader.read(min(65536, left))
        if not part:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(part)
        yield part
    while headers.get("transfer-encoding") == "chunked":
        size = int(await reader.readuntil(b"\r\n"), 16)
        part = (await reader.readexactly(size + 2))[:-2]
        if not size:
            return
        yield part


async def raw(reader: Reader, writer: Writer, headers: dict[str, str]) -> None:
    """An upgrade after which it counts bytes up to the other side's half-close, and then says how many."""
    accept = b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    size = 0
    while part := await reader.read(65536):
        size += len(part)
    writer.write(b"%d bytes" % size)
    writer.write_eof()


async def main(path: str) -> None:
    server = await asyncio.start_unix_server(serve, path, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2]))
