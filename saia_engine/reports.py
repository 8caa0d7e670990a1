"""What a gate's relay tells the engine about itself. Hostile input: its bounds are checked as it is decoded."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from saia_engine.wire.messages import (
    MOST_KEYS,
    MOST_TRAFFIC,
    CounterId,
    KeyState,
    Moment,
    TrafficCount,
)

LARGEST_BYTES = 1024 * 1024
LARGEST_COUNT = 2**53 - 1

Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\A[a-z0-9][a-z0-9_-]*\Z")]
Instance = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"\A[A-Za-z0-9._-]+\Z")]
ByInstance = Annotated[dict[Instance, Count], Meta(max_length=1000)]
ByService = Annotated[dict[Name, Count], Meta(max_length=1000)]


class GateReport(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One relay's word; `requests` and `errors` count since its start. `queued`, `keys` and
    what follows them are the proxy's own."""

    proxy: Name
    relay: Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    peer: Annotated[str, Meta(max_length=100)] = ""
    """The proxy's address as sshd saw it; shown only."""
    connected_since: Moment = 0.0
    routes_generation: Count = 0
    admin_revision: Count = 0
    in_flight: ByInstance = {}
    requests: ByService = {}
    errors: ByService = {}
    version: Annotated[str, Meta(max_length=64)] = ""
    queued: ByService = {}
    keys: Annotated[list[KeyState], Meta(max_length=MOST_KEYS)] = []
    started_at: Moment = 0.0
    counter: CounterId = ""
    traffic: Annotated[list[TrafficCount], Meta(max_length=MOST_TRAFFIC)] = []
    round_trip_s: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    """Of the gate's newest ping through SSH to the proxy and back."""
    wait_s: Annotated[float, Meta(ge=0, le=5)] = 0.0
    """So long it waits for the answer while nothing new is wanted of the proxy."""


_decoder = msgspec.json.Decoder(GateReport)


def decode(body: bytes) -> GateReport:
    """Raises ValueError, whose text says what is wrong where."""
    if len(body) > LARGEST_BYTES:
        raise ValueError(f"a report is at most {LARGEST_BYTES} bytes")
    return _decoder.decode(body)
