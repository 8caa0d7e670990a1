"""Who may ask: API keys, known here by their hashes only, each with its models; and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from saia_engine.edge.text import clean
from saia_engine.wire.messages import MOST_KEYS, KeyState
from saia_proxy.admin import Orders
from saia_proxy.config import SERVICE, ApiKey, hash_key
from saia_proxy.errors import ApiError
from saia_proxy.quota import Board, Quotas
from saia_proxy.request_head import RequestHead

MODELS_TOLD = 100
"""Characters."""


class Asking(Protocol):
    """A request as it comes; `key` becomes the name of the one that it presents."""

    key: str
    head: RequestHead


class Keyring:
    def __init__(self, keys: Iterable[ApiKey], orders: Orders, quotas: Quotas) -> None:
        # Found by the hash of what was presented, so how long it takes tells nothing of any key's text.
        self._by_hash = {key.hash: key for key in keys}
        self._orders = orders
        self._quotas = quotas

    def admit(self, request: Asking) -> ApiKey:
        """The key that its Authorization header presents. Raises ApiError (401)."""
        head = request.head
        key = head.key = head.key or self._find(head.first.get(b"authorization"))
        request.key = key.name
        if self._orders.revoked(key.name):
            self._quotas.refuse(key)
            raise ApiError(401, "key_revoked", "This API key was revoked.")
        return key

    def _find(self, authorization: bytes | None) -> ApiKey:
        scheme, _, presented = (authorization or b"").partition(b" ")
        presented = presented.strip()
        if scheme.lower() != b"bearer" or not presented:
            raise ApiError(401, "missing_api_key", "No API key: send it as 'Authorization: Bearer KEY'.")
        key = self._by_hash.get(hash_key(presented.decode("latin-1")))
        if key is None:
            raise ApiError(401, "invalid_api_key", "This API key is not known here.")
        return key


def states(keys: Iterable[ApiKey], board: Board, orders: Orders) -> list[KeyState]:
    """What engines are told of the first `MOST_KEYS` keys: never a hash."""
    rows = []
    for key, _ in zip(keys, range(MOST_KEYS), strict=False):
        concurrency, per_minute = orders.limits(key)
        usage = board.of(key.name)
        rows.append(
            KeyState(
                name=key.name,
                models=clean(" ".join(key.models), MODELS_TOLD),
                revoked=orders.revoked(key.name),
                concurrency=concurrency,
                per_minute=per_minute,
                in_flight=sum(worker.in_flight for worker in usage),
                requests=sum(worker.requests for worker in usage),
                refused=sum(worker.refused for worker in usage),
            )
        )
    return rows


def may_use(key: ApiKey, model: str) -> bool:
    """A model whose own name looks like a service's is for keys with `*` only."""
    return "*" in key.models or (model in key.models and not model.startswith(SERVICE))


def may_reach(key: ApiKey, service: str) -> bool:
    """All of a service, whatever its models: so a key that names only models never may."""
    return "*" in key.models or f"{SERVICE}{service}" in key.models
