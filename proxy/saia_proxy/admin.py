"""Orders that reach the proxy through its tunnels: maintenance and API keys, kept on our own disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from saia_engine.edge.files import write_atomically
from saia_engine.edge.logs import get_logger
from saia_engine.wire.messages import Admin, KeyOrder
from saia_proxy.config import ApiKey

_AS_CONFIGURED = KeyOrder()


class Kept(msgspec.Struct, frozen=True):
    """The last order of each upstream, as it lies on disk."""

    version: int = 1
    upstreams: dict[str, Admin] = {}


class Orders:
    """What the engines want of this proxy, each through its upstream, whole and again at each connection.

    Maintenance is the word of the connected ones; while none is connected, the last word of all. What was said
    of keys holds whoever is connected: a key is revoked if any upstream's last word says so, and of several limits
    the strictest counts. Each worker keeps a file of its own and begins with the newest of all files, so none can
    overwrite what another knows.
    """

    def __init__(self, state_dir: Path, upstreams: Iterable[str], worker: int = 0) -> None:
        self.maintenance = False
        """Whether new requests are refused."""
        self._path = state_dir / (f"admin.{worker}.json" if worker else "admin.json")
        self._log = get_logger("admin")
        self._orders = self._read(state_dir, frozenset(upstreams))
        self._kept = {name: order.revision for name, order in self._orders.items()}
        self._fault = ""
        self._heard: set[str] = set()
        self._keys: dict[str, tuple[KeyOrder, ...]] = {}
        self._revoked: frozenset[str] = frozenset()
        self._weigh()

    def revoked(self, key: str) -> bool:
        return key in self._revoked

    def limits(self, key: ApiKey) -> tuple[int, int]:
        """Requests at once and a minute that count for it now; 0 is no limit."""
        orders = self._keys.get(key.name)
        if orders is None:
            return key.concurrency, key.per_minute
        return (
            _strictest(key.concurrency, [order.concurrency for order in orders]),
            _strictest(key.per_minute, [order.per_minute for order in orders]),
        )

    def acknowledged(self, upstream: str) -> int:
        """The revision of this upstream that is in force and on disk; what is not there is tried again."""
        self._keep()
        return self._kept.get(upstream, 0)

    def apply(self, upstream: str, order: Admin) -> None:
        """In force at once. One that is older than what is known changes nothing: it took a longer way."""
        known = self._orders.get(upstream)
        if known is None or order.revision >= known.revision:
            self._orders[upstream] = order
        self._heard.add(upstream)
        before, revoked = self.maintenance, self._revoked
        self._weigh()
        self._keep()
        log = self._log.bind(upstream=upstream, revision=order.revision)
        if self.maintenance != before:
            log.warning("maintenance", on=self.maintenance)
        if self._revoked != revoked:
            log.warning("keys revoked", names=sorted(self._revoked))

    def lost(self, upstream: str) -> None:
        self._heard.discard(upstream)
        self._weigh()

    def _weigh(self) -> None:
        """What follows from all words together; once here, so that a request costs no thought."""
        said = self._heard or self._orders.keys()
        self.maintenance = any(self._orders[name].maintenance for name in said)
        words = self._orders.values()
        names = {name for order in words for name in order.keys}
        self._keys = {name: tuple(order.keys.get(name, _AS_CONFIGURED) for order in words) for name in names}
        self._revoked = frozenset(
            name for name, orders in self._keys.items() if any(order.revoked for order in orders)
        )

    def _keep(self) -> None:
        revisions = {name: order.revision for name, order in self._orders.items()}
        if revisions == self._kept:
            return
        try:
            write_atomically(self._path, msgspec.json.encode(Kept(upstreams=self._orders)), mode=0o600)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if reason != self._fault:
                self._log.error("cannot keep orders", path=str(self._path), reason=reason)
            self._fault = reason
        else:
            self._fault = ""
            self._kept = revisions

    def _read(self, state_dir: Path, upstreams: frozenset[str]) -> dict[str, Admin]:
        """The newest order of each of these upstreams in the files of all workers."""
        newest: dict[str, Admin] = {}
        for path in state_dir.glob("admin*.json"):
            for name, order in self._read_file(path).items():
                if name in upstreams and (name not in newest or order.revision > newest[name].revision):
                    newest[name] = order
        return newest

    def _read_file(self, path: Path) -> Mapping[str, Admin]:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Kept).upstreams
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            self._log.error("orders on disk are of no use", path=str(path), reason=str(exc))
            return {}


def _strictest(configured: int, ordered: Iterable[int | None]) -> int:
    limits = [configured if limit is None else limit for limit in ordered]
    return min((limit for limit in limits if limit), default=0)
