"""What is asked and answered, in OpenAI's shape: known to the service and to the load, so that each answer is checked.

Bodies that are measured by size are of a text in which no two places look alike, so a lost or doubled piece shows.
"""

from __future__ import annotations

import functools
import json
import random
import re
import string
from typing import Final

MODEL: Final = "bench"
CHAT: Final = "/v1/chat/completions"
UPLOAD: Final = "/v1/upload"
"""Answers with how many bytes came, and whether they were the right ones."""
DOWNLOAD: Final = "/v1/download/"
"""And a number: answers with so many bytes."""
WORD: Final = " word"
"""Each token of a stream."""
TOKEN: Final = f'"{WORD}"'.encode()
"""What of a token's event passes every proxy, however it spells JSON anew."""
DONE: Final = b"data: [DONE]\n\n"

_ASKED = re.compile(rb"(\d+) words, (\d+) a second")
_MARKED = re.compile(rb"say (\w+) after (\d+) ms")
_HEAD = f'{{"model": "{MODEL}", "input": "'.encode()
_TAIL = b'"}'


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def question(tokens: int = 0, rate: int = 0) -> bytes:
    """A chat completion's request: for one small answer, or for a stream of `tokens` at `rate` a second."""
    return _asking(f"{tokens} words, {rate} a second" if tokens else "One word, please.", stream=tokens > 0)


def _asking(text: str, *, stream: bool) -> bytes:
    return _json({"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": stream})


def asked(body: bytes) -> tuple[int, int]:
    """(tokens, tokens a second) that a question asks for; zeros where it wants one small answer."""
    found = _ASKED.search(body)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def marked(word: str, after_ms: int, tokens: int = 0, rate: int = 0) -> bytes:
    """The same, to be answered with a word of one's own, and after that time: mixed answers show."""
    please = f"Please say {word} after {after_ms} ms"
    text = f"{please}, {tokens} words, {rate} a second" if tokens else please
    return _asking(text, stream=tokens > 0)


def mark(body: bytes) -> tuple[str, float]:
    """(the word, seconds) that a question asks for."""
    found = _MARKED.search(body)
    return (f" {found[1].decode()}", int(found[2]) / 1000) if found else (WORD, 0.0)


def answer(word: str) -> bytes:
    """The small answer."""
    message = {"role": "assistant", "content": word}
    return _json(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1_795_516_645,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
    )


ANSWER: Final = answer(WORD)


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    document = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_795_516_645,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return b"data: " + _json(document) + b"\n\n"


def token_event(word: str) -> bytes:
    return _event({"content": word}, None)


TOKEN_EVENT: Final = token_event(WORD)
LAST_EVENTS: Final = _event({}, "stop") + DONE


@functools.cache
def _text(size: int) -> bytes:
    # Repeats after 1 MiB; a shift of less shows.
    letters = random.Random(1).choices(string.ascii_letters + string.digits, k=min(size, 1 << 20))
    piece = "".join(letters).encode()
    return (piece * (size // max(1, len(piece)) + 1))[:size]


@functools.cache
def upload(size: int) -> bytes:
    """A request's body of `size` bytes, 100 at least."""
    return _HEAD + _text(size - len(_HEAD) - len(_TAIL)) + _TAIL


@functools.cache
def download(size: int) -> bytes:
    """An answer's body of `size` bytes."""
    return _text(size)


def receipt(size: int, good: bool = True) -> bytes:
    """The answer to an upload."""
    return _json({"bytes": size, "good": good})
