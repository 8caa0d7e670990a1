"""What the API needs of the engine behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from saia_engine.api.hub import Hub
from saia_engine.instance_logs import LogQuestion
from saia_engine.record.desk import RecordDesk
from saia_engine.reports import GateReport
from saia_engine.view import LogPiece

Answer = dict[str, Any] | Awaitable[dict[str, Any]]
"""What goes out as JSON; a method may be `async def` or not."""


class Refused(Exception):
    """The engine won't do what was asked; the caller gets the code, the sentence and the HTTP status.

    Codes that clients know: `not_found` (404), `needs_confirmation`, `changed` (409), `not_allowed` (403).
    """

    def __init__(self, code: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for an act, why, and what was seen when it was decided."""

    uid: int
    """The caller's, as the kernel says."""
    reason: str = ""
    """The operator's words, for the audit: one line, safe to show."""
    confirm: bool = False
    """The operator was told what it may break, and wants it all the same."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the target; where one is not so any more the act is refused as `changed`."""


class Acts(Protocol):
    """What operators can ask for. Every method may raise Refused."""

    def scale(self, order: Order, service: str, replicas: int) -> Answer: ...

    def clear_override(self, order: Order, service: str) -> Answer: ...

    def pause(self, order: Order, service: str) -> Answer:
        """None of it until `resume`."""
        ...

    def resume(self, order: Order, service: str) -> Answer: ...

    def drain(self, order: Order, instance: str) -> Answer: ...

    def cancel(self, order: Order, instance: str) -> Answer:
        """Without waiting for what is open on it."""
        ...

    def replace(self, order: Order, instance: str) -> Answer:
        """Hand it over before its end."""
        ...

    def rollback(self, order: Order, service: str, revision: str) -> Answer:
        """To the beginning of a revision's name; empty: to the last good one."""
        ...

    def unpin(self, order: Order, service: str) -> Answer:
        """End a rollback."""
        ...

    def exclude(self, order: Order, node: str, for_s: float) -> Answer: ...

    def include(self, order: Order, node: str) -> Answer: ...

    def unfreeze(self, order: Order) -> Answer:
        """End the freeze of a mass absence (promise 7)."""
        ...

    def acknowledge(self, order: Order, alarm: str) -> Answer:
        """`code:subject`; it lasts as long as the alarm."""
        ...

    def unacknowledge(self, order: Order, alarm: str) -> Answer: ...

    def apply_config(self, order: Order) -> Answer:
        """Take in the changed configuration file."""
        ...

    def maintenance(self, order: Order, proxy: str, on: bool) -> Answer: ...

    def order_key(
        self, order: Order, proxy: str, key: str, changes: Mapping[str, bool | int | None]
    ) -> Answer:
        """`changes` are fields of a `wire.messages.KeyOrder`; the key need not be known yet."""
        ...


class Engine(Protocol):
    """Every method may raise Refused."""

    @property
    def hub(self) -> Hub: ...

    @property
    def acts(self) -> Acts: ...

    @property
    def record(self) -> RecordDesk: ...

    def config_diff(self) -> Answer:
        """See `config_changes.ConfigChanges.preview`."""
        ...

    def keys(self, proxy: str) -> Answer:
        """See `proxy_orders.ProxyOrders.key_rows`."""
        ...

    def known_instances(self) -> Answer:
        """All ids that the journal knows, ended ones too."""
        ...

    def instance_story(self, instance: str) -> Answer:
        """See `story.of_instance`."""
        ...

    async def instance_log(self, instance: str, asked: LogQuestion) -> LogPiece:
        """A piece of what it printed, or of its events as lines."""
        ...

    def service_story(self, service: str) -> Answer:
        """See `story.of_service`."""
        ...

    def revisions(self, service: str) -> Answer:
        """See `story.revisions`."""
        ...

    def plan(self) -> Answer:
        """See `view.plan_rows`."""
        ...

    def events(self, before: int, most: int, operators: bool, severities: Sequence[str]) -> Answer:
        """See `store.Store.events_before`."""
        ...

    def history(self, table: str, row: str) -> Answer:
        """See `telemetry.Telemetry.history`; `row` may be empty."""
        ...

    def report(self, report: GateReport) -> Answer:
        """Take in a relay's report; the answer is the desired state of its proxy."""
        ...
