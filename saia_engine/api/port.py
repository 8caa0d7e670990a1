"""What the API needs of the engine behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from saia_engine.api.hub import Hub
from saia_engine.instance_logs import LogQuestion
from saia_engine.reports import GateReport
from saia_engine.view import LogPiece

Answer = dict[str, Any] | Awaitable[dict[str, Any]]
"""What goes out as JSON; a method may be `async def` or not."""


class Refused(Exception):
    """The engine won't do what was asked; the caller gets the code, the sentence and the HTTP status.

    Codes that clients know: `not_found` (404), `needs_confirmation` (409), `not_allowed` (403).
    """

    def __init__(self, code: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Engine(Protocol):
    """`uid` is the caller's, as the kernel says. Every method may raise Refused."""

    @property
    def hub(self) -> Hub: ...

    def scale(self, uid: int, service: str, replicas: int, confirm: bool) -> Answer: ...

    def clear_override(self, uid: int, service: str) -> Answer: ...

    def drain(self, uid: int, instance: str, confirm: bool) -> Answer: ...

    def maintenance(self, uid: int, proxy: str, on: bool) -> Answer: ...

    def order_key(self, uid: int, proxy: str, key: str, changes: Mapping[str, bool | int | None]) -> Answer:
        """`changes` are fields of a `wire.messages.KeyOrder`; the key need not be known yet."""
        ...

    def keys(self, proxy: str) -> Answer:
        """See `proxy_orders.ProxyOrders.key_rows`."""
        ...

    def replace(self, uid: int, instance: str) -> Answer:
        """Hand it over before its end."""
        ...

    def rollback(self, uid: int, service: str, revision: str, confirm: bool) -> Answer:
        """To the beginning of a revision's name; empty: to the last good one."""
        ...

    def unpin(self, uid: int, service: str) -> Answer:
        """End a rollback."""
        ...

    def exclude(self, uid: int, node: str, for_s: float, because: str, confirm: bool) -> Answer: ...

    def include(self, uid: int, node: str) -> Answer: ...

    def unfreeze(self, uid: int, confirm: bool) -> Answer:
        """End the freeze of a mass absence (promise 7)."""
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

    def report(self, report: GateReport) -> Answer:
        """Take in a relay's report; the answer is the desired state of its proxy."""
        ...
