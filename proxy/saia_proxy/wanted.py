"""Which model a request asks for; its body is looked at and never changed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from saia_proxy.errors import ApiError

MOST_PARTS = 200
MOST_PART_HEADERS = 16
LARGEST_PART_HEADER = 4096
LONGEST_MODEL = 400
"""Bytes; longer than any name that a service may give its model."""
SLICE = 256 * 1024
"""A form is looked through in pieces, so that a large one holds nobody else up."""

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it writes down what hostile forms hold


_S = TypeVar("_S")


class _Wanted(msgspec.Struct):
    model: str


class _Streamed(msgspec.Struct):
    stream: bool = False


_wanted = msgspec.json.Decoder(_Wanted)
_streamed = msgspec.json.Decoder(_Streamed)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


async def wanted_model(content_type: bytes | None, body: bytes | bytearray, query: bytes) -> str:
    """Named by the body's `model`, JSON or a form's field; without a body by the query's. Raises ApiError (400)."""
    if not body:
        return of_query(query)
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return await of_form(body, options.get(b"boundary", b""))
    return of_json(body)


def of_json(body: bytes | bytearray) -> str:
    """Nothing but `model` is looked at. Raises ApiError (400)."""
    try:
        return _decoded(_wanted, body).model
    except msgspec.ValidationError:
        raise _missing("The body must be a JSON object whose 'model' is a string.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ApiError(400, "invalid_json", "The body is not JSON.") from None


def wants_events(content_type: bytes | None, body: bytes | bytearray) -> bool:
    """The request, which names its model, asks for server-sent events."""
    if parse_options_header(content_type)[0] == b"multipart/form-data":
        return False
    try:
        return _decoded(_streamed, body).stream
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _decoded(decoder: msgspec.json.Decoder[_S], body: bytes | bytearray) -> _S:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Texts cut in the middle of an emoji hold half of a pair, which the services' parsers take.
        return decoder.decode(_SURROGATE.sub(rb"\\u003f", body))


def of_query(query: bytes) -> str:
    """Raises ApiError (400)."""
    try:
        found = [
            value for name, value in parse_qsl(query.decode("latin-1"), max_num_fields=100) if name == "model"
        ]
    except ValueError:
        found = []
    if len(found) != 1:
        raise _missing("A request without a body names its model in the query, once: '?model=NAME'.")
    return found[0]


async def of_form(body: bytes | bytearray, boundary: bytes) -> str:
    """Raises ApiError (400)."""
    try:
        form = _Form(boundary)
        for start in range(0, len(body), SLICE):
            form.feed(bytes(body[start : start + SLICE]))
            await asyncio.sleep(0)
    except FormParserError:
        raise _invalid_form() from None
    if not form.ended:
        raise _invalid_form()
    if len(form.models) != 1:
        raise _missing("The form must have one field 'model'.")
    try:
        return form.models[0].decode()
    except UnicodeDecodeError:
        raise _missing("The form's field 'model' is not UTF-8.") from None


class _Form:
    """Finds the values of the fields `model`; files of that name are none."""

    def __init__(self, boundary: bytes) -> None:
        if not boundary:
            raise FormParserError("no boundary")
        self.models: list[bytes] = []
        self.ended = False
        self._parts = 0
        self._name = self._value = b""
        self._is_model = False
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_part_data": self._data,
            "on_end": self._ends,
        }
        self._parser = MultipartParser(
            boundary,
            callbacks,  # type: ignore[arg-type]
            max_header_count=MOST_PART_HEADERS,
            max_header_size=LARGEST_PART_HEADER,
        )

    def feed(self, data: bytes) -> None:
        """Raises FormParserError."""
        self._parser.write(data)

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise FormParserError("too many parts")
        self._name = self._value = b""
        self._is_model = False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._is_model = options.get(b"name") == b"model" and b"filename" not in options
            if self._is_model:
                self.models.append(b"")
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_model:
            self.models[-1] += data[start:end]
            if len(self.models[-1]) > LONGEST_MODEL:
                raise FormParserError("no model has such a name")

    def _ends(self) -> None:
        self.ended = True


def _missing(text: str) -> ApiError:
    return ApiError(400, "model_missing", text, param="model")


def _invalid_form() -> ApiError:
    return ApiError(400, "invalid_form", "The body is not a well-formed multipart form.")
