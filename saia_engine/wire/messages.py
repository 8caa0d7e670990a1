"""What the frames carry: JSON payloads as typed values, shared by gate and proxy.

No message names an address or a secret of the cluster: the proxy gets ids, states and times.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from saia_engine.wire import frames
from saia_engine.wire.frames import WireError
from saia_engine.wire.histogram import CLASSES

WIRE_VERSION: Final = frames.WIRE_VERSION

# Reset codes. Those in NOT_TAKEN say that the instance provably did not take the request.
DRAINING: Final = "draining"
NO_ROUTE: Final = "no_route"
REFUSED: Final = "refused"
LIMIT: Final = "limit"
TOO_LATE: Final = "too_late"
"""After the instance's `admit_until`."""
CLOSING: Final = "closing"
"""The connection ended before the request was sent."""
FORBIDDEN: Final = "forbidden"
"""Method, path or service outside the allow-list, or a request that cannot be sent on."""
INSTANCE_LOST: Final = "instance_lost"
OVERFLOW: Final = "overflow"
"""The receiver's buffers are full, and the instance may have had part of the request."""
BAD_RESPONSE: Final = "bad_response"
CANCELLED: Final = "cancelled"
TUNNEL_LOST: Final = "tunnel_lost"
PROTOCOL: Final = "protocol"
NOT_TAKEN: Final = frozenset({DRAINING, NO_ROUTE, REFUSED, LIMIT, TOO_LATE, CLOSING, FORBIDDEN})
CODES: Final = NOT_TAKEN | {INSTANCE_LOST, OVERFLOW, BAD_RESPONSE, CANCELLED, TUNNEL_LOST, PROTOCOL}
"""All of ours; a peer may send others."""


LARGEST_COUNT: Final = 2**53 - 1
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all payloads; unknown fields are ignored, so that versions can differ."""


class Hello(Message, frozen=True):
    """First frame of each side. `version` is the highest that the side speaks; the lower one counts."""

    version: Count
    program: Annotated[str, Meta(max_length=200)] = ""


class Open(Message, frozen=True):
    """Proxy to gate: a request to one instance."""

    instance: str
    method: str
    path: str
    """With the query, as it goes on the request line."""
    headers: list[tuple[str, str]] = []
    request_id: str = ""
    content_length: int | None = None
    """None: no body, unless `chunked`."""
    chunked: bool = False


class Head(Message, frozen=True):
    """Gate to proxy: the response's status and headers, hop-by-hop ones dropped."""

    status: int
    headers: list[tuple[str, str]] = []


class Reset(Message, frozen=True):
    """Either side: this stream is over, not well. A code that is none of ours counts as taken."""

    code: Annotated[str, Meta(max_length=64)]
    text: Annotated[str, Meta(max_length=1000)] = ""


class ServiceState(Message, frozen=True):
    """What a proxy may know of a service."""

    name: str
    models: list[str] = []
    methods: list[str] = []
    paths: list[str] = []
    replicas: int = 0
    ready: int = 0
    starting: int = 0
    """All that come."""
    queued: int = 0
    """Those of them that wait in the cluster's queue still; 0 also from a gate that doesn't tell."""
    eta: float | None = None
    """When the first of them may be ready (s since the epoch), where that is known."""


class InstanceState(Message, frozen=True):
    """What a proxy may know of an instance that may get requests."""

    id: str
    service: str
    generation: Count
    admit_until: float
    end: float
    draining: bool = False


class Routes(Message, frozen=True, tag="routes"):
    """Gate to proxy: the whole of what it may reach; replaces the one before."""

    generation: Count
    services: list[ServiceState] = []
    instances: list[InstanceState] = []
    site: str = ""
    """Installation and cluster: two gates of one site tell of the same services."""


MOST_KEYS: Final = 500
"""Rows of keys in one message, either way."""
LONGEST_KEY_NAME: Final = 64
KeyName = Annotated[str, Meta(max_length=LONGEST_KEY_NAME, pattern=r"\A[a-z0-9][a-z0-9-]*\Z")]


class KeyOrder(Message, frozen=True):
    """What operators want of one API key. A limit of None is that of the proxy's configuration, 0 is none."""

    revoked: bool = False
    concurrency: Count | None = None
    """Requests at once."""
    per_minute: Count | None = None


class KeyState(Message, frozen=True):
    """Proxy's word on one API key as it is in force there: counts are of all its workers. Never a secret or hash."""

    name: KeyName
    models: Annotated[str, Meta(max_length=1000)] = ""
    """What it may use, in words."""
    revoked: bool = False
    concurrency: Count = 0
    """0: no limit; so for `per_minute`."""
    per_minute: Count = 0
    in_flight: Count = 0
    requests: Count = 0
    """Admitted since the proxy's start."""
    refused: Count = 0
    """For its limits, or since it is revoked."""


class Admin(Message, frozen=True, tag="admin"):
    """Gate to proxy: the whole desired state of the proxy, sent again at each connection.

    Of two the one with the higher revision is the newer; 0 is that of an engine that never ordered anything.
    """

    revision: Count
    maintenance: bool = False
    keys: Annotated[dict[KeyName, KeyOrder], Meta(max_length=MOST_KEYS)] = {}
    """By name, also of keys that the proxy does not have yet."""


class Renew(Message, frozen=True, tag="renew"):
    """Gate to proxy: other code is installed than this relay runs; please connect anew and let it end its streams."""


class Applied(Message, frozen=True, tag="applied"):
    """Proxy to gate: what it has applied."""

    routes_generation: Count = 0
    admin_revision: Count = 0


MOST_TRAFFIC: Final = 200
"""Rows of traffic in one message."""
LONGEST_MODEL: Final = 200
REASONS: Final = ("busy", "away", "service", "lost", "timeout", "proxy", "limit", "client", "gone")
"""Why a request got no good answer: its queue was full; nothing was ready or within reach; its instance answered 5xx;
the instance or the way to it was lost; it took too long; the proxy failed; its key's limit; the request itself (4xx);
its client went away."""
FAULTS: Final = frozenset({"busy", "away", "service", "lost", "timeout", "proxy"})
"""Those that are no client's doing."""
Histogram = Annotated[list[Count], Meta(max_length=CLASSES)]
"""Counts by `histogram.BOUNDS_S`; zeros at the end are left out."""
CounterId = Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{16})?\Z")]
Moment = Annotated[float, Meta(ge=0, le=1e11)]


class TrafficCount(Message, frozen=True):
    """One worker's requests of one model of one service, since that worker's start; both names are empty for those
    that reached no service."""

    service: Annotated[str, Meta(max_length=64)] = ""
    model: Annotated[str, Meta(max_length=LONGEST_MODEL)] = ""
    requests: Count = 0
    """Ended."""
    failed: Annotated[dict[Annotated[str, Meta(max_length=16)], Count], Meta(max_length=16)] = {}
    """Those of them without a good answer, by `REASONS`."""
    tokens: Count = 0
    """Server-sent events, also of streams that go on: of most servers one for each token."""
    in_flight: Count = 0
    first_token: Histogram = []
    """Of streams, from an instance that may take the request to the first event."""
    answer: Histogram = []
    """Of other requests, from there to the beginning of the answer."""
    waited: Histogram = []
    """From a request's arrival to an instance that may take it."""


class Metrics(Message, frozen=True, tag="metrics"):
    """Proxy to gate, each second: its own word, for display and demand."""

    version: str = ""
    queued: dict[str, Count] = {}
    """Requests waiting, by service."""
    keys: Annotated[list[KeyState], Meta(max_length=MOST_KEYS)] = []
    started_at: Moment = 0.0
    """When the proxy began, by its own clock: counts of keys go on since then."""
    counter: CounterId = ""
    """Who counted `traffic`: one worker, from its start to its end, whichever connection tells of it."""
    traffic: Annotated[list[TrafficCount], Meta(max_length=MOST_TRAFFIC)] = []


Control = Routes | Admin | Renew | Applied | Metrics

M = TypeVar("M")
_decoders = {kind: msgspec.json.Decoder(kind) for kind in (Hello, Open, Head, Reset)}
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def pack(message: Message) -> bytes:
    return _encode(message)


def unpack(kind: type[M], payload: bytes) -> M:
    """Raises WireError for a payload that is not such a message: one of those that stand alone in a frame."""
    try:
        return _decoders[kind].decode(payload)  # type: ignore[return-value]
    except _UNREADABLE as exc:
        raise WireError(f"bad {getattr(kind, '__name__', 'control')} message: {exc}") from exc


class _Typed(msgspec.Struct):
    type: str


_type = msgspec.json.Decoder(_Typed)
_control = msgspec.json.Decoder(Control)
_known = frozenset(kind.__struct_config__.tag for kind in Control.__args__)


def unpack_control(payload: bytes) -> Control | None:
    """None for a type that we do not know, so that a newer peer may say more. Raises WireError."""
    try:
        if _type.decode(payload).type not in _known:
            return None
        return _control.decode(payload)
    except _UNREADABLE as exc:
        raise WireError(f"bad control message: {exc}") from exc
