"""Straight to the service: what nothing in between would cost."""

from __future__ import annotations

from bench.job import Target
from bench.paths import Path
from bench.site import Site


def open_path(site: Site) -> Path:
    target = Target("127.0.0.1", site.service_port)
    return Path("direct", target, lambda: {"service": site.service_pids()})
