"""An OpenAI-shaped server that a real client can tell from none: what the whole chain's tests run as their service.

    python openai_service.py --uds PATH

It computes nothing, but answers each endpoint in its exact form, and echoes what it got where a form has room for it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

STORED: dict[str, dict[str, Any]] = {}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "G\\u00f6ttingen"}'},
}


def completion(asked: dict[str, Any], **message: Any) -> dict[str, Any]:
    finish = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


async def chat(request: Request) -> Response:
    asked = await request.json()
    status = asked.get("answer_status")
    if status:
        error = {"message": "as asked", "type": "x", "param": None, "code": "as_asked"}
        return JSONResponse({"error": error}, status)
    if "wait_s" in asked:
        await asyncio.sleep(asked["wait_s"])
    if asked.get("stream"):
        return StreamingResponse(chunks(asked), media_type="text/event-stream")
    if asked.get("tools"):
        return JSONResponse(completion(asked, tool_calls=[CALL]))
    if asked.get("response_format"):
        kind = asked["response_format"]["type"]
        return JSONResponse(completion(asked, content=json.dumps({"name": kind, "age": 7})))
    headers = {"x-seen-request-id": request.headers.get("x-request-id", "")}
    return JSONResponse(completion(asked, content=asked["messages"][-1]["content"]), headers=headers)


async def chunks(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode()

    if asked.get("tools"):
        call = {"index": 0, "id": "call_1", "type": "function"}
        yield chunk(
            {
                "role": "assistant",
                "tool_calls": [call | {"function": {"name": "get_weather", "arguments": ""}}],
            }
        )
        for piece in ('{"city": ', '"G\\u00f6ttingen"}'):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        yield chunk({}, "tool_calls")
    else:
        for number in range(asked.get("max_tokens", 5)):
            yield chunk({"content": f"{number} "})
        yield chunk({}, "stop")
    yield b": a comment\r\n\r\ndata: [DONE]\n\n"


async def embeddings(request: Request) -> Response:
    asked = await request.json()
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(text)), 0.5]}
        for index, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return JSONResponse({"object": "list", "data": data, "model": asked["model"], "usage": usage})


async def upload(request: Request) -> Response:
    """Transcriptions, translations: what was uploaded, by its digest."""
    async with request.form() as form:
        data = await form["file"].read()  # type: ignore[union-attr]
        name = form["file"].filename  # type: ignore[union-attr]
        text = f"{request.url.path} {form['model']} {name} {hashlib.sha256(data).hexdigest()}"
    return JSONResponse({"text": text})


async def speech(request: Request) -> Response:
    asked = await request.json()

    async def parts() -> AsyncIterator[bytes]:
        for number in range(256):
            yield bytes([number]) * len(asked["input"])

    return StreamingResponse(parts(), media_type="audio/mpeg")


async def images(request: Request) -> Response:
    if request.headers["content-type"].startswith("multipart/"):
        async with request.form() as form:
            seen = hashlib.sha256(await form["image"].read()).hexdigest()  # type: ignore[union-attr]
    else:
        seen = (await request.json())["prompt"]
    return JSONResponse({"created": 1, "data": [{"b64_json": "AAEC", "revised_prompt": seen}]})


async def responses(request: Request) -> Response:
    name = request.path_params.get("name")
    if name is None:
        asked = await request.json()
        name = f"resp_{len(STORED)}"
        content = [{"type": "output_text", "text": asked["input"], "annotations": []}]
        output = [
            {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
        ]
        STORED[name] = {
            "id": name, "object": "response", "created_at": 1, "model": asked["model"], "status": "completed",
            "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        }  # fmt: skip
    if name not in STORED:
        return JSONResponse(
            {"error": {"message": "no such response", "type": "x", "param": None, "code": "none"}}, 404
        )
    if request.method == "DELETE":
        del STORED[name]
        return JSONResponse({"id": name, "object": "response", "deleted": True})
    return JSONResponse(STORED[name])


async def moderations(request: Request) -> Response:
    asked = await request.json()
    flagged = {"flagged": True, "categories": {"hate": False}, "category_scores": {"hate": 0.1}}
    return JSONResponse({"id": "modr-1", "model": asked["model"], "results": [flagged]})


async def mirror(request: Request) -> Response:
    """Anything else: what it was asked, and the digest of the body."""
    digest = hashlib.sha256()
    async for part in request.stream():
        digest.update(part)
    seen = {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.scope["query_string"].decode(),
        "sha256": digest.hexdigest(),
        "headers": dict(request.headers),
    }
    return JSONResponse(seen)


async def realtime(socket: WebSocket) -> None:
    await socket.accept()
    try:
        await socket.send_json(
            {"type": "session.created", "session": {"model": socket.query_params.get("model")}}
        )
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
            else:
                await socket.send_text(message["text"])
    except WebSocketDisconnect:
        pass


async def health(_: Request) -> Response:
    return Response()


ALL = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
APP = Starlette(
    routes=[
        Route("/health", health),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/audio/transcriptions", upload, methods=["POST"]),
        Route("/v1/audio/translations", upload, methods=["POST"]),
        Route("/v1/audio/speech", speech, methods=["POST"]),
        Route("/v1/images/{what:path}", images, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/responses/{name}", responses, methods=["GET", "DELETE"]),
        Route("/v1/moderations", moderations, methods=["POST"]),
        WebSocketRoute("/v1/realtime", realtime),
        WebSocketRoute("/rooms/{name}", realtime),
        Route("/{rest:path}", mirror, methods=ALL),
    ]
)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", required=True)
    uvicorn.run(APP, uds=parser.parse_args().uds, log_level="warning")
