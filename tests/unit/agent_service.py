"""A small service for the agent's tests; speaks just enough HTTP, on $SAIA_SOCKET or $SAIA_PORT.

Files in its working directory steer it: `sick` makes /health answer 503, `hang` makes it answer nothing,
`keep` leaves its connections open after an answer.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path


def facts() -> bytes:
    return json.dumps(
        {
            "environment": dict(os.environ),
            "directory": str(Path.cwd()),
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "parent_group": os.getpgid(os.getppid()),
            "arguments": sys.argv[1:],
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "descriptors": sorted(entry.name for entry in Path("/proc/self/fd").iterdir()),
        }
    ).encode()


async def answer(writer: asyncio.StreamWriter, body: bytes, status: str = "200 OK") -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    verb, path, *_ = (await reader.readline()).decode().split(" ")
    if verb == "COUNT":  # counts bytes up to the client's half-close, then says how many
        size = 0
        while chunk := await reader.read(65536):
            size += len(chunk)
        writer.write(b"%d" % size)
    elif verb == "ECHO":
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    elif path.startswith("/flood/"):
        left = int(path.split("/")[2])
        while left:
            writer.write(b"x" * min(65536, left))
            left -= min(65536, left)
            Path("flooded").write_text(str(left))
            await writer.drain()
    elif path.startswith("/stream/"):
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for number in range(int(path.split("/")[2])):
            writer.write(f"data: {number}\n".encode())
            await asyncio.sleep(0.02)
    elif path == "/crash":
        os._exit(3)
    elif path == "/facts":
        await answer(writer, facts())
    elif Path("hang").exists():
        await asyncio.sleep(60)
    else:
        await answer(writer, b"ok", "503 Sick" if Path("sick").exists() else "200 OK")
        if Path("keep").exists():
            await asyncio.sleep(60)
    await writer.drain()
    writer.close()


async def main() -> None:
    busy: set[asyncio.Task[None]] = set()

    async def track(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            await serve(reader, writer)
        except OSError:
            pass
        finally:
            busy.discard(task)

    if "SAIA_SOCKET" in os.environ:
        await asyncio.start_unix_server(track, os.environ["SAIA_SOCKET"])
    else:
        await asyncio.start_server(track, "127.0.0.1", int(os.environ["SAIA_PORT"]))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: None if os.environ.get("STUBBORN") else stop.set())
    await stop.wait()
    if busy:
        await asyncio.wait(busy)
    Path("finished").write_text("yes")


if __name__ == "__main__":
    asyncio.run(main())
