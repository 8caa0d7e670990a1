"""Client of `operator.sock`: follow the engine's state, and ask it for acts.

One `EngineClient` for each event loop. Every method raises ClientError or one of its kinds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack
from urllib.parse import quote

import httpx
import msgspec

from saia_engine.record.files import LARGEST_SEGMENT
from saia_engine.record.index import Index
from saia_engine.view import (
    TABLES,
    AlarmView,
    Change,
    EngineView,
    EventView,
    InstanceView,
    JobView,
    KeyView,
    LogPiece,
    NodeView,
    ProxyView,
    ServiceView,
    TrafficView,
)

CONNECT_S = 3.0
ANSWER_S = 30.0
SILENCE_S = 15.0
"""The stream carries a blank line each 5 s: after three missing ones the engine is stuck or gone."""
LONGEST_LINE = 64 * 1024 * 1024


class ClientError(Exception):
    """The engine could not do what was asked. `code` is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class EngineUnreachable(ClientError):
    """No engine answers at the socket, or it fell silent."""

    def __init__(self, message: str) -> None:
        super().__init__("unreachable", message)


class StreamGap(ClientError):
    """A line of the stream is missing or can't be read: connect again for a fresh snapshot."""

    def __init__(self, message: str) -> None:
        super().__init__("stream_gap", message)


class NeedsConfirmation(ClientError):
    """The act may hurt; the message says how: ask the operator, then repeat it with `confirm`."""


class NotAllowed(ClientError):
    """The caller's uid may not do this, or may not even open the socket."""


class NotFound(ClientError):
    """There is no such service, instance or proxy."""


class Changed(ClientError):
    """Something of the target that was `expect`ed is not so any more; the message says what it is now."""


class Intent(TypedDict, total=False):
    """What every act takes."""

    confirm: bool
    """The operator was told what it may break."""
    reason: str
    """For the audit, at most 200 characters."""
    expect: Mapping[str, Any]
    """What was seen of the target. Raises Changed where the engine knows better."""


_KINDS: dict[str, type[ClientError]] = {
    "needs_confirmation": NeedsConfirmation,
    "not_allowed": NotAllowed,
    "not_found": NotFound,
    "changed": Changed,
}


class EventPage(msgspec.Struct, frozen=True):
    """Events, the newest first; `before` asks for the next ones, 0: there are no older ones."""

    events: list[EventView] = []
    before: int = 0


class Tables:
    """The engine's state as rows by key; see `view`. Apply each change of the stream in its order."""

    _decoders: ClassVar = {name: msgspec.json.Decoder(row) for name, row in TABLES.items()}

    def __init__(self) -> None:
        self.engine: EngineView | None = None
        self.services: dict[str, ServiceView] = {}
        self.instances: dict[str, InstanceView] = {}
        self.jobs: dict[str, JobView] = {}
        self.nodes: dict[str, NodeView] = {}
        self.proxies: dict[str, ProxyView] = {}
        self.traffic: dict[str, TrafficView] = {}
        self.keys: dict[str, KeyView] = {}
        self.alarms: dict[str, AlarmView] = {}
        self.events: dict[str, EventView] = {}
        self._coming: dict[str, dict[str, Any]] = {}
        """Snapshots of which lines are still to come, by table."""

    def apply(self, change: Change) -> None:
        """Take in one change; a table's snapshot is taken in whole, with its last line. A table of a newer engine is
        passed over.

        Raises StreamGap for a row that can't be read.
        """
        decoder = self._decoders.get(change.table)
        if decoder is None:
            return
        try:
            rows: dict[str, Any] = {key: decoder.decode(row) for key, row in change.set.items()}
        except msgspec.DecodeError as exc:
            raise StreamGap(f"a row of {change.table} can't be read: {exc}") from exc
        if change.table == "engine":
            self.engine = rows.get("engine", None if change.reset else self.engine)
            return
        if change.reset:
            self._coming[change.table] = {}
        coming = self._coming.get(change.table)
        table: dict[str, Any] = getattr(self, change.table) if coming is None else coming
        for key in change.gone:
            table.pop(key, None)
        table.update(rows)
        if not change.more and change.table in self._coming:
            setattr(self, change.table, self._coming.pop(change.table))


class EngineClient:
    """Talks HTTP to the engine over its Unix socket."""

    def __init__(self, socket_path: str | Path) -> None:
        self.socket_path = Path(socket_path)
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket_path)),
            base_url="http://saia",
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- state

    async def changes(self) -> AsyncGenerator[Change]:
        """A snapshot (a change with `reset` for each table), then each change, on one connection.

        Raises EngineUnreachable when the connection ends or falls silent, StreamGap when a line is missing.
        """
        expected: int | None = None
        async with aclosing(self._lines("/v1/stream")) as lines:
            async for line in lines:
                try:
                    change = _change.decode(line)
                except msgspec.DecodeError as exc:
                    raise StreamGap(f"a line of the stream can't be read: {exc}") from exc
                if expected is not None and change.seq != expected:
                    raise StreamGap(f"line {change.seq} of the stream came where {expected} was due")
                expected = change.seq + 1
                yield change
        raise EngineUnreachable(f"the engine at {self.socket_path} ended the stream")

    async def state(self) -> Tables:
        """All tables as they are now."""
        async with self._translated():
            response = await self._http.get("/v1/state")
        try:
            content = _tables.decode(_checked(response).content)
        except msgspec.DecodeError as exc:
            raise ClientError("bad_answer", f"the engine's state can't be read: {exc}") from exc
        tables = Tables()
        for name, rows in content.items():
            tables.apply(Change(seq=0, table=name, set=rows, reset=True))
        return tables

    async def plan(self) -> dict[str, Any]:
        """What the engine would do now, and why."""
        return await self._call("GET", "/v1/plan")

    async def revisions(self, service: str) -> dict[str, Any]:
        """Its launch specs, the newest last, and which one is asked for."""
        return await self._call("GET", f"/v1/services/{_quoted(service)}/revisions")

    async def instance_log(
        self,
        instance: str,
        *,
        stream: str = "output",
        offset: int = 0,
        most: int = 1 << 20,
        file: str = "",
        wait_s: float = 0.0,
    ) -> LogPiece:
        """A piece of what it printed (`output`), or of what happened to it as lines (`events`).

        A negative offset counts from the end. Where nothing is there beyond it, the answer waits for it up to
        `wait_s` (25 at most). Give back the `file` of the piece before: a rotation then loses nothing.
        """
        asked = {"stream": stream, "from": offset, "most": most, "file": file, "wait_s": wait_s}
        timeout = httpx.Timeout(ANSWER_S + wait_s, connect=CONNECT_S)
        path = f"/v1/instances/{_quoted(instance)}/log"
        async with self._translated():
            response = await self._http.get(path, params=asked, timeout=timeout)
        return _log_piece(_checked(response))

    async def service_story(self, service: str) -> dict[str, Any]:
        """Its revisions, instances and newest events."""
        return await self._call("GET", f"/v1/services/{_quoted(service)}/story")

    async def instance_story(self, instance: str) -> dict[str, Any]:
        """Its record and all its events, also when it ended long ago."""
        return await self._call("GET", f"/v1/instances/{_quoted(instance)}/story")

    async def known_instances(self) -> list[str]:
        """The ids of all that the journal knows."""
        return (await self._call("GET", "/v1/instances"))["instances"]

    async def keys(self, proxy: str) -> dict[str, Any]:
        """Its API keys: what is ordered, whether that is in force, and what the proxy says of each."""
        return await self._call("GET", f"/v1/proxies/{_quoted(proxy)}/keys")

    async def events(
        self, before: int | None = None, most: int = 200, *, operators: bool = False, severity: str = ""
    ) -> EventPage:
        """Older events from the journal: `before` that number, of operators only, of at least that severity."""
        asked = {"most": str(most), "uid": "any" if operators else "", "severity": severity}
        if before is not None:
            asked["before"] = str(before)
        async with self._translated():
            response = await self._http.get("/v1/events", params=asked)
        try:
            return _page.decode(_checked(response).content)
        except msgspec.DecodeError as exc:
            raise ClientError("bad_answer", f"the engine's events can't be read: {exc}") from exc

    async def history(self, table: str, row: str = "") -> dict[str, Any]:
        """The last hour in steps of `step_s` up to `end`: of all rows of `traffic` or `keys` their requests a second,
        of one row all that is kept. Raises NotFound."""
        query = f"?row={_quoted(row)}" if row else ""
        return await self._call("GET", f"/v1/history/{_quoted(table)}{query}")

    async def record(self) -> Index:
        """What the engine keeps of its state's past. Raises ClientError with code `no_such_call` of an older engine."""
        async with self._translated():
            response = await self._http.get("/v1/record")
        try:
            return _index.decode(_checked(response).content)
        except msgspec.DecodeError as exc:
            raise ClientError("bad_answer", f"the engine's answer can't be read: {exc}") from exc

    async def record_segment(self, name: str) -> bytes:
        """One segment of it, as it is on the engine's disk; see `record.frames`."""
        parts: list[bytes] = []
        size = 0
        path = f"/v1/record/segments/{_quoted(name)}"
        async with self._translated(), self._http.stream("GET", path) as response:
            if not response.is_success:
                await response.aread()
            async for part in _checked(response).aiter_raw():
                parts.append(part)
                size += len(part)
                if size > LARGEST_SEGMENT:
                    raise ClientError("bad_answer", f"{name} is larger than {LARGEST_SEGMENT} bytes")
        return b"".join(parts)

    async def config_diff(self) -> dict[str, Any]:
        """What the changed configuration file would change, or its faults."""
        return await self._call("GET", "/v1/config/diff")

    async def health(self) -> dict[str, Any]:
        return await self._call("GET", "/v1/health")

    # -- intents

    async def scale(self, service: str, replicas: int, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Override the config file's number. Raises NeedsConfirmation where `min_available` is undercut."""
        return await self._ask("POST", f"{_service(service)}/scale", intent, replicas=replicas)

    async def clear_override(self, service: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Back to the config file's number."""
        return await self._ask("DELETE", f"{_service(service)}/override", intent)

    async def pause(self, service: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """None of it until it is resumed. Raises NeedsConfirmation without `confirm`."""
        return await self._ask("POST", f"{_service(service)}/pause", intent)

    async def resume(self, service: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """As many as before the pause: the file's number, or an override."""
        return await self._ask("DELETE", f"{_service(service)}/pause", intent)

    async def drain(self, instance: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Take an instance out; its slot is filled again. Raises NeedsConfirmation as `scale` does."""
        return await self._ask("POST", f"{_instance(instance)}/drain", intent)

    async def cancel(self, instance: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """End its job, whatever is open on it. Raises NeedsConfirmation for one that has served."""
        return await self._ask("POST", f"{_instance(instance)}/cancel", intent)

    async def replace(self, instance: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Hand an instance over to a new one before its end."""
        return await self._ask("POST", f"{_instance(instance)}/replace", intent)

    async def rollback(self, service: str, revision: str = "", **intent: Unpack[Intent]) -> dict[str, Any]:
        """Run an older revision, by default the last good one. Raises NeedsConfirmation for one that is not good."""
        return await self._ask("POST", f"{_service(service)}/rollback", intent, revision=revision)

    async def unpin(self, service: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Back to the revision that the config file asks for."""
        return await self._ask("DELETE", f"{_service(service)}/pin", intent)

    async def exclude(self, node: str, for_s: float, **intent: Unpack[Intent]) -> dict[str, Any]:
        """No new jobs there for so long. Raises NeedsConfirmation where no other node is left."""
        return await self._ask("POST", f"/v1/nodes/{_quoted(node)}/exclusion", intent, for_s=for_s)

    async def include(self, node: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """New jobs may go there again."""
        return await self._ask("DELETE", f"/v1/nodes/{_quoted(node)}/exclusion", intent)

    async def acknowledge(self, alarm: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Take up an alarm, named by its key `code:subject`; it lasts as long as the alarm."""
        return await self._ask("POST", f"/v1/alarms/{_quoted(alarm)}/ack", intent)

    async def unacknowledge(self, alarm: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        return await self._ask("DELETE", f"/v1/alarms/{_quoted(alarm)}/ack", intent)

    async def unfreeze(self, **intent: Unpack[Intent]) -> dict[str, Any]:
        """End the freeze of a mass absence. Raises NeedsConfirmation without `confirm`."""
        return await self._ask("POST", "/v1/unfreeze", intent)

    async def apply_config(self, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Take in the changed configuration file; `expect` may hold the `digest` of its diff.

        Raises NeedsConfirmation where services would be removed.
        """
        return await self._ask("POST", "/v1/config/apply", intent)

    async def maintenance(self, proxy: str, on: bool, **intent: Unpack[Intent]) -> dict[str, Any]:
        return await self._ask("POST", f"/v1/proxies/{_quoted(proxy)}/maintenance", intent, on=on)

    async def revoke_key(self, proxy: str, key: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Its new requests are refused; it need not be known to the proxy yet."""
        return await self._ask("POST", _key(proxy, key) + "/revocation", intent)

    async def restore_key(self, proxy: str, key: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        return await self._ask("DELETE", _key(proxy, key) + "/revocation", intent)

    async def limit_key(
        self, proxy: str, key: str, limits: dict[str, int | None], **intent: Unpack[Intent]
    ) -> dict[str, Any]:
        """`concurrency` and `per_minute`: None is what the proxy's configuration says, 0 no limit; what is not
        given stays as it is."""
        return await self._ask("POST", _key(proxy, key) + "/limits", intent, **limits)

    async def clear_key_limits(self, proxy: str, key: str, **intent: Unpack[Intent]) -> dict[str, Any]:
        """Back to what the proxy's configuration says."""
        return await self._ask("DELETE", _key(proxy, key) + "/limits", intent)

    async def _ask(self, method: str, path: str, intent: Intent, **fields: Any) -> dict[str, Any]:
        said = {name: value for name, value in intent.items() if value}
        return await self._call(method, path, fields | said or None)

    # -- the wire

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        async with self._translated():
            response = await self._http.request(method, path, content=content, headers=headers)
        try:
            return _object.decode(_checked(response).content)
        except msgspec.DecodeError as exc:
            raise ClientError("bad_answer", f"the engine's answer can't be read: {exc}") from exc

    async def _lines(self, path: str) -> AsyncGenerator[bytes]:
        """The body's lines without the blank ones; each is whole."""
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S, read=SILENCE_S)
        async with (
            self._translated(),
            self._http.stream("GET", path, timeout=timeout) as response,
        ):
            if response.status_code != httpx.codes.OK:
                await response.aread()
                _checked(response)
            splitter = _Splitter()
            async for chunk in response.aiter_raw():
                for line in splitter.feed(chunk):
                    yield line

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.TimeoutException as exc:
            raise EngineUnreachable(f"the engine at {self.socket_path} does not answer") from exc
        except httpx.TransportError as exc:
            cause = _os_error(exc)
            if isinstance(cause, PermissionError):
                raise NotAllowed(
                    "not_allowed",
                    f"you may not open {self.socket_path}: it is for root, the engine's user and the operators' group",
                ) from exc
            why = cause.strerror if cause and cause.strerror else str(exc) or "the connection broke"
            raise EngineUnreachable(f"no engine answers at {self.socket_path} ({why})") from exc


class _Splitter:
    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            if self._parts:
                line = b"".join((*self._parts, line))
                self._parts, self._size = [], 0
            if line:
                yield line
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > LONGEST_LINE:
                raise StreamGap("a line of the stream does not end")


_change = msgspec.json.Decoder(Change)
_page = msgspec.json.Decoder(EventPage)
_index = msgspec.json.Decoder(Index)
_tables = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_object = msgspec.json.Decoder(dict[str, Any])


class _Error(msgspec.Struct):
    code: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


def _checked(response: httpx.Response) -> httpx.Response:
    """The response of a call that was done. Raises the ClientError that it tells of."""
    if response.is_success:
        return response
    try:
        error = msgspec.json.decode(response.content, type=_ErrorBody).error
    except msgspec.DecodeError:
        raise ClientError("failed", f"the engine answered with status {response.status_code}") from None
    raise _KINDS.get(error.code, ClientError)(error.code, error.message)


def _log_piece(response: httpx.Response) -> LogPiece:
    told = response.headers
    try:
        return LogPiece(
            response.content,
            int(told["saia-log-from"]),
            int(told["saia-log-size"]),
            told["saia-log-file"],
            float(told["saia-log-written-at"]) if "saia-log-written-at" in told else None,
        )
    except (KeyError, ValueError) as exc:
        raise ClientError("bad_answer", f"the engine's answer can't be read: {exc}") from exc


def _service(name: str) -> str:
    return f"/v1/services/{_quoted(name)}"


def _instance(name: str) -> str:
    return f"/v1/instances/{_quoted(name)}"


def _key(proxy: str, key: str) -> str:
    return f"/v1/proxies/{_quoted(proxy)}/keys/{_quoted(key)}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _os_error(exc: BaseException) -> OSError | None:
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause
