"""The call that reads an instance's log: its question in the query, its answer as bytes with headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from starlette.responses import Response

from saia_engine.api.port import Refused
from saia_engine.instance_logs import LONGEST_WAIT_S, MOST_BYTES, LogQuestion, Stream
from saia_engine.view import LogPiece

_WHOLE = re.compile(r"-?[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?")
_FILE = re.compile(r"[a-z0-9-]{0,40}")


def log_question(query: Mapping[str, str]) -> LogQuestion:
    """Raises Refused for what can't be asked."""
    stream = query.get("stream", "output")
    if stream not in get_args(Stream):
        raise Refused("bad_request", f"stream must be one of {', '.join(get_args(Stream))}", 400)
    file = _shaped(query, "file", "", _FILE)
    most = int(_shaped(query, "most", str(MOST_BYTES), _WHOLE))
    return LogQuestion(
        stream="events" if stream == "events" else "output",
        offset=int(_shaped(query, "from", "0", _WHOLE)),
        most=max(0, min(most, MOST_BYTES)),
        file=file,
        wait_s=min(float(_shaped(query, "wait_s", "0", _SECONDS)), LONGEST_WAIT_S),
    )


def _shaped(query: Mapping[str, str], name: str, default: str, shape: re.Pattern[str]) -> str:
    value = query.get(name, default)
    if not shape.fullmatch(value):
        raise Refused("bad_request", f"{name} can't be used", 400)
    return value


def log_answer(piece: LogPiece) -> Response:
    headers = {
        "saia-log-file": piece.file,
        "saia-log-from": str(piece.offset),
        "saia-log-size": str(piece.size),
        "cache-control": "no-store",
    }
    if piece.written_at is not None:
        headers["saia-log-written-at"] = f"{piece.written_at:.3f}"
    return Response(piece.data, media_type="application/octet-stream", headers=headers)
