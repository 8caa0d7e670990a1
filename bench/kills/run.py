"""One run: the site, the load, kills in turn and at random, and the verdict."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from bench.kills import judge, victims
from bench.kills.judge import Found, Log, Logged
from bench.kills.load import Job, Request, arguments
from bench.kills.site import Whole
from bench.kills.victims import INSTANCE, Kill
from bench.site import ROOT

LOAD = Job(plain=16, streams=16, stream_s=(2.0, 5.0))
QUIET_S = 1.0
"""Of load on a whole site before each kill."""


def order(count: int, dice: random.Random) -> list[str]:
    """So many kills of each kind: in turn at first, the second half of them at random."""
    kinds = list(victims.KINDS)
    in_turn = kinds * ((count + 1) // 2)
    rest = kinds * (count // 2)
    dice.shuffle(rest)
    return in_turn + rest


def run(
    kinds: Sequence[str], dice: random.Random, told: Callable[[str], object] = print, load: Job = LOAD
) -> list[Found]:
    """What came of each kill, the time before them first. Raises Unavailable."""
    with Whole() as site:
        site.start("load", [sys.executable, *arguments(load, site.target)], PYTHONPATH=str(ROOT))
        kills: list[Kill] = []
        for number, kind in enumerate(kinds, 1):
            _settle(site)
            kills.append(victims.kill(site, kind, dice))
            told(f"{number} of {len(kinds)}: {kind}")
            if kind == INSTANCE:
                _forgive(site, kills[-1].instance)
        _settle(site)
        site.daemons.end("load")
        requests = [
            msgspec.json.decode(line, type=Request)
            for line in site.daemons.log("load").read_bytes().splitlines()
        ]
        return judge.judged(kills, requests, _log(site))


def _settle(site: Whole) -> None:
    """Twice: what was killed may not have been missed yet."""
    site.wait_whole()
    time.sleep(QUIET_S)
    site.wait_whole()


def _forgive(site: Whole, killed: str) -> None:
    """Has another instance replaced by hand, so that the next death is no crash loop, which would wait."""
    site.wait("the engine to notice", lambda: killed not in site.ready())
    site.wait_whole()
    oldest = site.ready()[0]
    site.drain(oldest)
    site.wait("the drained instance to be replaced", lambda: oldest not in (site.ready() or [oldest]))


def _log(site: Whole) -> Log:
    requests: dict[str, Logged] = {}
    lost: list[tuple[float, str]] = []
    for line in site.proxy_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "request":
            requests[entry["request_id"]] = Logged(entry["instance"], entry["relay"], entry["outcome"])
        elif entry["event"] == "upstream down" and entry["relay"]:
            lost.append((datetime.fromisoformat(entry["timestamp"]).timestamp(), entry["relay"]))
    return Log(requests, lost)
