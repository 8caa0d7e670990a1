"""How long after a client goes away its request ends at the service: our path as it is shipped, and nginx's beside it.

    python -m bench.cancel [--count 200]

Clients leave while their answer is awaited, or in the middle of a stream, one at a time and 16 at once. Times are from
the client's close to the end of the service's connection, by one clock.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
import urllib.request

from bench import exchange
from bench.figures import percentile
from bench.http_client import request
from bench.job import Target
from bench.paths import Path, nginx, ours
from bench.service import CUTS
from bench.site import Site, Unavailable, raise_file_limit

SETTLE_S = 0.05
"""Until the request is at the service."""
GONE_S = 1.0
RATE = 50
TOKENS = 100_000
LATE_MS = 60_000
KINDS = {
    "awaited": exchange.marked("word", LATE_MS),
    "stream": exchange.question(TOKENS, RATE),
}


def main() -> int:
    options = argparse.ArgumentParser(prog="bench.cancel", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--count", type=int, default=200, help="of each kind")
    count = options.parse_args().count
    raise_file_limit()
    try:
        with Site() as site:
            paths = [nginx.open_path(site), ours.open_path(site)]
            print(f"{'ms':24}{'p50':>8}{'p99':>8}{'max':>8}{'never':>8}")
            for path in paths:
                for kind, body in KINDS.items():
                    for at_once in (1, 16):
                        _tell(site, path, kind, body, at_once, count)
    except Unavailable as exc:
        print(f"nothing can be measured: {exc}")
        return 1
    return 0


def _tell(site: Site, path: Path, kind: str, body: bytes, at_once: int, count: int) -> None:
    took: list[float] = []
    rounds = max(1, count // at_once)
    for _ in range(rounds):
        took += _leave(site, path.target, body, at_once)
    ms = [each * 1e3 for each in took]
    what = f"{path.name}, {kind}, {at_once}"
    shown = "".join(
        f"{value:8.1f}" for value in (percentile(ms, 0.5), percentile(ms, 0.99), max(ms, default=0.0))
    )
    print(f"{what:24}{shown}{rounds * at_once - len(took):8}", flush=True)


def _leave(site: Site, target: Target, body: bytes, count: int) -> list[float]:
    """So many clients ask and go away together; after how many seconds the service noticed each."""
    clients = [socket.create_connection((target.host, target.port)) for _ in range(count)]
    for client in clients:
        client.sendall(request(target, exchange.CHAT, body))
    time.sleep(SETTLE_S)
    before = len(_cuts(site))
    left_at = time.monotonic()
    for client in clients:
        client.close()
    time.sleep(SETTLE_S)
    while len(found := _cuts(site)[before:]) < count and time.monotonic() < left_at + GONE_S:
        time.sleep(SETTLE_S)
    return [at - left_at for at in found]


def _cuts(site: Site) -> list[float]:
    """The service's own, asked for past all paths."""
    asked = urllib.request.Request(f"http://127.0.0.1:{site.service_port}{CUTS}", b"")
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
