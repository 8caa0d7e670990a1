"""Orders that reach the proxy through its tunnels: maintenance, kept on our own disk."""

from __future__ import annotations

from pathlib import Path

import msgspec

from saia_engine.edge.files import write_atomically
from saia_engine.edge.logs import get_logger
from saia_engine.wire.messages import Admin

FILE = "admin.json"


class Kept(msgspec.Struct, frozen=True):
    """The last order of each upstream, as it lies on disk."""

    version: int = 1
    upstreams: dict[str, Admin] = {}


class Maintenance:
    """Whether the proxy refuses new requests.

    Engines order it, each through its upstream, whole and again at each connection. The word of the
    connected ones counts; while none is connected, the last word kept on disk does.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        self._log = get_logger("admin")
        self._orders = self._read()
        self._acknowledged = {name: order.revision for name, order in self._orders.items()}
        self._heard: set[str] = set()

    @property
    def on(self) -> bool:
        names = self._heard or self._orders.keys()
        return any(self._orders[name].maintenance for name in names)

    def revision(self, upstream: str) -> int:
        """The last revision of this upstream that is in force and on disk."""
        return self._acknowledged.get(upstream, 0)

    def apply(self, upstream: str, order: Admin) -> None:
        """In force at once; where it can't be kept on disk it is not acknowledged, and said so."""
        before = self.on
        known = self._orders.get(upstream)
        self._orders[upstream] = order
        self._heard.add(upstream)
        if order != known or self.revision(upstream) != order.revision:
            self._keep(upstream, order)
        if self.on != before:
            self._log.warning("maintenance", on=self.on, upstream=upstream, revision=order.revision)

    def lost(self, upstream: str) -> None:
        self._heard.discard(upstream)

    def _keep(self, upstream: str, order: Admin) -> None:
        try:
            write_atomically(self._path, msgspec.json.encode(Kept(upstreams=self._orders)), mode=0o600)
        except OSError as exc:
            self._log.error("cannot keep an order", upstream=upstream, path=str(self._path), reason=str(exc))
        else:
            self._acknowledged[upstream] = order.revision

    def _read(self) -> dict[str, Admin]:
        try:
            return dict(msgspec.json.decode(self._path.read_bytes(), type=Kept).upstreams)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            self._log.error("orders on disk are of no use", path=str(self._path), reason=str(exc))
            return {}
