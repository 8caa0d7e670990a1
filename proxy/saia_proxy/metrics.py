"""What the proxy counts, in Prometheus' form, over all its workers. No client's text becomes a label.

Several workers share one directory (`workers.share_metrics`); whichever of them is asked tells the sum.
"""

from __future__ import annotations

import os
from typing import Any, Protocol, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from saia_proxy.workers import METRICS

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

M = TypeVar("M", Counter, Histogram)

_QUICK_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Finished(Protocol):
    """A request as it ended."""

    key: str
    status: int
    outcome: str
    bytes_out: int
    events: int
    """Server-sent events that went out."""
    began_at: float
    ended_at: float
    taken_at: float | None
    """When an instance was found for it."""
    answered_at: float | None
    """When its answer began."""


class Metrics:
    """Each figure of `docs/proxy.md`'s table; times in seconds, of a monotonic clock."""

    def __init__(self) -> None:
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "saia_proxy_requests", "Requests answered.", ["model", "status", "outcome"], registry=registry
        )
        self._by_key = Counter(
            "saia_proxy_key_requests", "Requests answered, by API key.", ["key", "status"], registry=registry
        )
        self._queue = Histogram(
            "saia_proxy_queue_seconds",
            "From a request's arrival to an instance that may take it.",
            ["model"],
            buckets=_QUICK_S,
            registry=registry,
        )
        self._first_byte = Histogram(
            "saia_proxy_first_byte_seconds",
            "From there to the first byte of the answer: tunnel, gate and instance.",
            ["model"],
            buckets=_QUICK_S,
            registry=registry,
        )
        self._whole = Histogram(
            "saia_proxy_request_seconds",
            "From a request's arrival to its end.",
            ["model"],
            buckets=_QUICK_S,
            registry=registry,
        )
        self._bytes = Counter(
            "saia_proxy_response_bytes", "Bytes of answers' bodies.", ["model"], registry=registry
        )
        self._events = Counter(
            "saia_proxy_stream_events",
            "Server-sent events: of most servers, one for each token.",
            ["model"],
            registry=registry,
        )
        self._not_taken = Counter(
            "saia_proxy_not_taken",
            "Tries at an instance that took nothing, by reason; each went on to another.",
            ["reason"],
            registry=registry,
        )
        self.round_trip = Histogram(
            "saia_proxy_tunnel_round_trip_seconds",
            "From a ping to its answer, through SSH to the gate and back; on each connection every 5 s.",
            ["upstream"],
            buckets=_QUICK_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "saia_proxy_in_flight",
            "Requests under way.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queued = Gauge(
            "saia_proxy_queued",
            "Requests that wait for an instance.",
            ["service"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waited = Histogram(
            "saia_proxy_waited_seconds",
            "Waited in the queue until an instance may take it.",
            ["service"],
            buckets=_QUICK_S,
            registry=registry,
        )
        self._refused = Counter(
            "saia_proxy_queue_refusals",
            "Requests that the queue refused, by reason.",
            ["service", "reason"],
            registry=registry,
        )
        self.connected = Gauge(
            "saia_proxy_upstream_connections",
            "Open connections to an upstream's gates.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def finished(self, request: Finished, model: str) -> None:
        """One request more. `model` is one that there is, or empty."""
        status = str(request.status)
        self._labelled(self._requests, model, status, request.outcome).inc()
        if request.key:
            self._labelled(self._by_key, request.key, status).inc()
        if not model:
            return
        self._labelled(self._whole, model).observe(request.ended_at - request.began_at)
        if request.bytes_out:
            self._labelled(self._bytes, model).inc(request.bytes_out)
        if request.taken_at is not None:
            self._labelled(self._queue, model).observe(request.taken_at - request.began_at)
            if request.answered_at is not None:
                self._labelled(self._first_byte, model).observe(request.answered_at - request.taken_at)
        if request.events:
            self._labelled(self._events, model).inc(request.events)

    def not_taken(self, reason: str) -> None:
        self._not_taken.labels(reason).inc()

    def _labelled(self, metric: M, *values: str) -> M:
        """`metric.labels(*values)`, which checks and locks each time."""
        if (metric, values) not in self._children:
            self._children[metric, values] = metric.labels(*values)
        return self._children[metric, values]

    def waited(self, service: str, seconds: float) -> None:
        """A request left the queue for an instance."""
        self._waited.labels(service).observe(seconds)

    def refused(self, service: str, reason: str) -> None:
        """A request did not get into the queue, or through it."""
        self._refused.labels(service, reason).inc()

    def text(self) -> bytes:
        """All of it, of all workers."""
        if METRICS not in os.environ:
            return generate_latest(self._registry)
        whole = CollectorRegistry()
        multiprocess.MultiProcessCollector(whole)
        return generate_latest(whole)
