"""The bodies of intents: what an operator may send, and its bounds. Everything that comes in is hostile."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from saia_engine.api.port import Order
from saia_engine.edge.text import clean

MOST_REPLICAS = 1000
MOST_AT_ONCE = 1_000_000
MOST_PER_MINUTE = 10_000_000
SHORTEST_EXCLUSION_S = 60.0
LONGEST_EXCLUSION_S = 365 * 86400.0
LONGEST_REASON = 200
MOST_EVENTS = 500

Words = Annotated[str, Meta(max_length=LONGEST_REASON)]


class Seen(msgspec.Struct, forbid_unknown_fields=True):
    """What the operator saw of the target; what is left out may be anything by now."""

    def facts(self) -> dict[str, Any]:
        return {name: fact for name in self.__struct_fields__ if (fact := getattr(self, name)) is not UNSET}


class ServiceSeen(Seen):
    replicas: int | UnsetType = UNSET
    """Desired, overrides and a pause applied."""
    revision: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


class InstanceSeen(Seen):
    state: Annotated[str, Meta(max_length=20)] | UnsetType = UNSET
    generation: int | UnsetType = UNSET


class NodeSeen(Seen):
    excluded: bool | UnsetType = UNSET


class ProxySeen(Seen):
    maintenance: bool | UnsetType = UNSET


class ConfigSeen(Seen):
    digest: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


class Intent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every act takes."""

    reason: Words = ""
    confirm: bool = False

    def order(self, uid: int) -> Order:
        seen = getattr(self, "expect", None)
        facts = seen.facts() if isinstance(seen, Seen) else {}
        return Order(uid, clean(self.reason.strip(), LONGEST_REASON), self.confirm, facts)


class OnService(Intent, kw_only=True):
    expect: ServiceSeen | None = None


class OnInstance(Intent, kw_only=True):
    expect: InstanceSeen | None = None


class OnNode(Intent, kw_only=True):
    expect: NodeSeen | None = None


class OnProxy(Intent, kw_only=True):
    expect: ProxySeen | None = None


class OnConfig(Intent, kw_only=True):
    expect: ConfigSeen | None = None


class Scale(OnService, kw_only=True):
    replicas: Annotated[int, Meta(ge=0, le=MOST_REPLICAS)]


class Rollback(OnService, kw_only=True):
    revision: Annotated[str, Meta(pattern="^[0-9a-f]{0,12}$")] = ""


class Exclude(OnNode, kw_only=True):
    for_s: Annotated[float, Meta(ge=SHORTEST_EXCLUSION_S, le=LONGEST_EXCLUSION_S)]
    because: Words = ""
    """An older word for `reason`."""

    def order(self, uid: int) -> Order:
        self.reason = self.reason or self.because
        return super().order(uid)


class Maintenance(OnProxy, kw_only=True):
    on: bool


class KeyLimits(Intent, kw_only=True):
    """One that is left out stays as it is; null is the proxy's configuration, 0 no limit."""

    concurrency: Annotated[int, Meta(ge=0, le=MOST_AT_ONCE)] | UnsetType | None = UNSET
    per_minute: Annotated[int, Meta(ge=0, le=MOST_PER_MINUTE)] | UnsetType | None = UNSET

    def changes(self) -> dict[str, int | None]:
        both = {"concurrency": self.concurrency, "per_minute": self.per_minute}
        return {name: limit for name, limit in both.items() if not isinstance(limit, UnsetType)}


class Events(msgspec.Struct, forbid_unknown_fields=True):
    """The query of `GET /v1/events`."""

    before: Annotated[int, Meta(ge=0, le=2**53)] = 2**53
    most: Annotated[int, Meta(ge=1, le=MOST_EVENTS)] = 200
    uid: Literal["", "any"] = ""
    """`any`: what an operator caused."""
    severity: Literal["", "info", "warning", "critical"] = ""
    """At least."""


class At(msgspec.Struct, forbid_unknown_fields=True):
    """The query of `GET /v1/record/at`."""

    t: Annotated[float, Meta(ge=0, le=2**40)]
    """Seconds since the epoch."""
