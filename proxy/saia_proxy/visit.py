"""One request's way to an instance: at once where one may take it, else in its service's line for a while."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from saia_engine.wire.messages import LIMIT
from saia_proxy.balancer import Target
from saia_proxy.errors import ApiError, ClientGone
from saia_proxy.exchange import Exchange
from saia_proxy.queue import Place, Queue
from saia_proxy.routing import Offer
from saia_proxy.waiting import RETRY_MOST_S, Ticket, retry_after_s

RETRY_AT_ONCE_S = 1
RETRY_STARTING_S = 5
RETRY_NONE_S = 15
MUCH_LATER = 2
"""So many times `max_wait`: a forecast may come true earlier, but hardly by so much."""


class Visit:
    """One request's way through the queue. However often an instance refuses it, it keeps its rank and its deadline.

    `find` says what there is for it now, or raises ApiError; `events` whether its client asked for a stream.
    """

    # Most requests never wait.
    _limited = False
    _give_up_at: float | None = None
    _heartbeat_s = _beat_at = math.inf
    _wake: asyncio.Future[None] | None = None
    _place: Place | None = None
    _turned_away = False
    _error: ApiError | None = None

    def __init__(
        self,
        queue: Queue,
        exchange: Exchange,
        kind: str,
        *,
        find: Callable[[], Offer],
        affinity: bytes,
        events: Callable[[], bool],
    ) -> None:
        self._queue = queue
        self._exchange = exchange
        self._kind = kind
        self._find = find
        self._affinity = affinity
        self._events = events
        self._rank = next(queue.ranks)
        self._loop = queue.loop

    async def place(self) -> Place:
        """Waits for one. Raises ApiError (404, 405, 429, 503), ClientGone."""
        offer = self._find()
        if self._exchange.gone:
            raise ClientGone
        if not self._queue.waiting(offer.service):  # nobody is overtaken
            place = self._queue.take(offer, self._affinity)
            if place is not None:
                return place
        return await self._wait(offer)

    def not_taken(self, target: Target, code: str) -> None:
        """The place was no good, with this reset code."""
        self._limited = code == LIMIT
        self._queue.table.not_taken(target, code)

    def wake(self) -> None:
        """What it waits for has come, or its client has gone."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _wait(self, offer: Offer) -> Place:
        queue, began = self._queue, self._loop.time()
        if self._give_up_at is None:
            self._begin(offer, began)
        line = queue.line(offer.service)
        alike = self._kind, offer.name, tuple(service.name for service in offer.services)
        ticket: Ticket[Place] = Ticket(self._rank, alike, self._look, self._told)
        self._turned_away = False
        self._wake = self._loop.create_future()
        try:
            with queue.table.waiting(offer), queue.metrics.queued.labels(offer.service).track_inprogress():
                try:
                    queue.enter(line, ticket)
                    await self._until_woken()
                finally:
                    line.leave(ticket)
            if self._exchange.gone:
                raise ClientGone
            if self._error is not None:
                raise self._error
            if self._place is None:
                raise self._refused(self._find(), self._why())
        except BaseException:
            if self._place is not None:
                self._place.leave()
            raise
        now = self._loop.time()
        line.pace.went(now)
        queue.metrics.waited(offer.service, now - began)
        place, self._place = self._place, None
        return place

    def _begin(self, offer: Offer, now: float) -> None:
        """Raises ApiError where waiting is of no use."""
        rule = self._queue.rules.of(offer.service)
        if self._queue.closed:
            raise self._refused(offer, "shutdown")
        if offer.state == "stopped" and not offer.replicas:
            raise self._refused(offer, "stopped")
        far_s = MUCH_LATER * rule.max_wait_s
        far = offer.eta is not None and offer.eta - time.time() > far_s
        if far and not (offer.out_of_reach or self._queue.table.serves(offer)):
            raise self._refused(offer, "not_soon")
        if not rule.max_wait_s:
            raise self._refused(offer, "no_wait")
        self._give_up_at = now + rule.max_wait_s
        self._heartbeat_s = rule.heartbeat_s
        self._beat_at = now + rule.heartbeat_s

    async def _until_woken(self) -> None:
        """Or until `max_wait` is over; a client that asked for a stream gets signs of life meanwhile."""
        assert self._wake is not None
        assert self._give_up_at is not None
        while not self._wake.done() and (now := self._loop.time()) < self._give_up_at:
            if now < self._beat_at:
                await asyncio.wait([self._wake], timeout=min(self._give_up_at, self._beat_at) - now)
            elif self._events():
                self._beat_at = now + self._heartbeat_s
                await self._exchange.hold()
            else:
                self._beat_at = math.inf

    def _look(self) -> Place | None:
        try:
            return self._queue.take(self._find(), self._affinity)
        except ApiError as error:
            self._error = error
            self.wake()
            return None

    def _told(self, place: Place | None) -> None:
        self._place = place
        self._turned_away = place is None
        self.wake()

    def _why(self) -> str:
        if not self._turned_away:
            return "waited_out"
        return "shutdown" if self._queue.closed else "full"

    def _refused(self, offer: Offer, reason: str) -> ApiError:
        """Of the queue's own accord; `reason` is the metrics' word for it."""
        self._queue.metrics.refused(offer.service, reason)
        self._queue.table.missed(offer)
        retry_s = self._retry_s(offer)
        if reason == "shutdown":
            return ApiError(
                503, "shutdown", "The proxy stops; please try again.", retry_after_s=RETRY_AT_ONCE_S
            )
        if reason == "full":
            text = f"Too many requests wait for this {self._kind}; please try again later."
            return ApiError(429, "queue_full", text, retry_after_s=retry_s)
        if self._limited:
            text = "Too many requests are under way; please try again."
            return ApiError(429, "too_many_requests", text, retry_after_s=retry_s)
        text = f"No instance of this {self._kind} is ready; please try again."
        if self._queue.table.serves(offer):
            text = f"No instance of this {self._kind} can take the request now; please try again."
        return ApiError(503, "no_instance", text, retry_after_s=retry_s)

    def _retry_s(self, offer: Offer) -> int:
        """When to ask again."""
        if self._limited:
            return RETRY_AT_ONCE_S
        if self._queue.table.serves(offer):
            line = self._queue.line(offer.service)
            return retry_after_s(len(line), line.pace.per_second(self._loop.time())) or RETRY_STARTING_S
        soonest_s = RETRY_STARTING_S if offer.starting else RETRY_NONE_S
        if offer.eta is None or offer.out_of_reach:
            return soonest_s
        return max(soonest_s, min(math.ceil(offer.eta - time.time()), RETRY_MOST_S))
