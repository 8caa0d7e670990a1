"""One request to one instance and its answer: between a stream of the proxy and a connection to the front."""

from __future__ import annotations

import asyncio

from saia_engine.gate import headers as rules
from saia_engine.gate.admission import Request
from saia_engine.gate.http1 import BadResponse, Connection, ConnectionLost
from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Stream, StreamReset

WHOLE_BODY = 64 * 1024
"""A body up to this size is collected first, and sent in one piece with its head."""


class BodyMismatch(Exception):
    """The proxy sent more or less of a body than it had announced."""


async def collect(stream: Stream, request: Request) -> bytes | None:
    """The whole of a short body; None for one that is to be passed on as it comes.

    Raises StreamReset, BodyMismatch.
    """
    length = request.content_length
    if request.chunked or (length is not None and length > WHOLE_BODY):
        return None
    if not length:
        return b""
    parts, size = [], 0
    while data := await stream.receive():
        parts.append(data)
        size += len(data)
        if size > length:
            raise BodyMismatch
    if size < length:
        raise BodyMismatch
    return b"".join(parts)


async def run(stream: Stream, request: Request, body: bytes | None, connection: Connection) -> int:
    """Sends the request and passes the response on; returns its status.

    Afterwards the connection is `reusable` or to be aborted. Raises StreamReset where the proxy ended it,
    BodyMismatch, ConnectionLost, BadResponse.
    """
    connection.begin(request.method, upgrade=bool(request.websocket_accept))
    stream.taken = True
    connection.write(request.head + (body or b""))
    if body is not None:
        return await _answer(stream, request, connection)
    uploader = asyncio.create_task(_upload(stream, request, connection))
    try:
        return await _answer(stream, request, connection)
    except ConnectionLost:
        if uploader.done() and not uploader.cancelled():
            uploader.result()  # raises what broke it, if it was not the instance
        raise
    finally:
        if not uploader.done():
            connection.spoil()  # the instance answered without having read all of the request
        uploader.cancel()
        await asyncio.gather(uploader, return_exceptions=True)


async def discard(stream: Stream) -> None:
    """Reads what is left of a request that was answered before its end."""
    try:
        while await stream.receive():
            pass
    except StreamReset:
        pass


async def _answer(stream: Stream, request: Request, connection: Connection) -> int:
    status, headers = await connection.head()
    if status == 101:
        _check_upgrade(request, connection, headers)
        stream.respond(Head(status, rules.for_proxy(headers)))
        await _pass_raw(stream, connection)
        return status
    stream.respond(Head(status, rules.for_proxy(headers)))
    while data := await connection.read():
        await stream.send(data)
    stream.end()
    return status


async def _upload(stream: Stream, request: Request, connection: Connection) -> None:
    """Ends the connection where the body is not as announced, so that the other direction ends too."""
    sent = 0
    try:
        while data := await stream.receive():
            sent += len(data)
            if request.content_length is not None and sent > request.content_length:
                raise BodyMismatch
            connection.write(b"%x\r\n%b\r\n" % (len(data), data) if request.chunked else data)
            await connection.drain()
        if request.content_length is not None and sent < request.content_length:
            raise BodyMismatch
        if request.chunked:
            connection.write(b"0\r\n\r\n")
    except ConnectionLost:
        pass  # the response may be there all the same
    except (BodyMismatch, StreamReset):
        connection.abort()
        raise


def _check_upgrade(request: Request, connection: Connection, headers: rules.Headers) -> None:
    accepted = rules.values(headers, "sec-websocket-accept") == [request.websocket_accept]
    if not connection.upgraded or not accepted or rules.words(headers, "upgrade") != ["websocket"]:
        raise BadResponse("an upgrade that proves nothing")


async def _pass_raw(stream: Stream, connection: Connection) -> None:
    async def up() -> None:
        try:
            while data := await stream.receive():
                connection.write(data)
                await connection.drain()
            connection.write_eof()
        except (ConnectionLost, StreamReset):
            pass  # the other direction ends too, and says so

    upward = asyncio.create_task(up())
    try:
        while data := await connection.read():
            await stream.send(data)
        stream.end()
    finally:
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)
