"""Several connections to one upstream: which one a request takes, whose word counts, and what a torn one ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from saia_engine.wire import messages
from saia_engine.wire.messages import Admin, Head, Metrics, Open, Renew, Routes
from saia_engine.wire.mux import MuxClosed, Stream, StreamReset
from saia_proxy import line, tunnel
from saia_proxy.admin import Orders
from saia_proxy.line import BACKOFF, Backoff
from saia_proxy.routing import RoutingTable
from saia_proxy.transports import Link, MakeMux, Unusable
from saia_proxy.tunnel import Tunnel
from tests.unit.proxy_gate import EVENTS, Gate, instance, service, silent
from tests.unit.proxy_running import BODY, Running, config, running, to, until

ASKED = Open("one", "GET", "/v1/x")


def routes(generation: int, *names: str) -> Routes:
    return Routes(generation, [service()], [instance(name) for name in names])


class Upstream:
    """A tunnel alone, to a gate that a test makes speak."""

    def __init__(
        self, gate: Gate, directory: Path, connections: int, backoff: Backoff, longest_s: float
    ) -> None:
        self.gate = gate
        self.links = 0
        self.refused = 0
        self.connected_at: list[float] = []
        self.table = RoutingTable(("a",))
        self.orders = Orders(directory, ("a",))
        self.connections = connections
        self.tunnel = Tunnel(
            "a",
            self._connect,
            table=self.table,
            orders=self.orders,
            metrics=lambda: Metrics("1", self.table.demand()),
            connections=connections,
            on_link=self._on_link,
            backoff=backoff,
            longest_s=longest_s,
        )

    async def _connect(self, make_mux: MakeMux) -> Link:
        try:
            link = await to(self.gate)(make_mux)
        except Unusable:
            self.refused += 1
            raise
        self.connected_at.append(time.monotonic())
        return link

    def _on_link(self, change: int) -> None:
        self.links += change

    @property
    def known(self) -> set[str]:
        return {target.instance for offer in self.table.services.values() for target in offer.targets}


@contextlib.asynccontextmanager
async def upstream(
    gate: Gate,
    directory: Path,
    connections: int = 2,
    backoff: Backoff = BACKOFF,
    longest_s: float = 60,
) -> AsyncIterator[Upstream]:
    made = Upstream(gate, directory, connections, backoff, longest_s)
    task = asyncio.create_task(made.tunnel.run())
    try:
        await until(lambda: made.links == connections)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert made.links == 0
        await gate.close()


@pytest.fixture
def gate() -> Gate:
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = silent
    return gate


async def test_streams_spread_evenly_over_the_lines(gate, tmp_path):
    async with upstream(gate, tmp_path, 3) as site:
        await opened(site, 30)
        await until(lambda: len(gate.opened) == 30)
        assert [len(mux.streams) for mux in gate.muxes] == [10, 10, 10]


async def test_what_opens_in_one_turn_goes_together_but_not_too_unevenly(gate, tmp_path):
    async with upstream(gate, tmp_path, 2) as site:
        for _ in range(6):
            site.tunnel.open(ASKED)
        await until(lambda: len(gate.opened) == 6)
        assert [len(mux.streams) for mux in gate.muxes] == [3, 3], "few are spread evenly"
        await opened(site, 50)
        await until(lambda: len(gate.opened) == 56)
        for _ in range(7):
            site.tunnel.open(ASKED)
        await until(lambda: len(gate.opened) == 63)
        assert sorted(len(mux.streams) for mux in gate.muxes) == [28, 35], "in one packet"
        for _ in range(100):
            site.tunnel.open(ASKED)
        await until(lambda: len(gate.opened) == 163)
        fewer, more = sorted(len(mux.streams) for mux in gate.muxes)
        assert fewer * 5 >= more * 3


async def opened(site: Upstream, count: int) -> list[Stream]:
    """One in each turn of the loop, as clients come."""
    streams = []
    for _ in range(count):
        streams.append(site.tunnel.open(ASKED))
        await asyncio.sleep(0)
    return streams


async def test_a_torn_line_ends_only_its_own_streams_and_new_ones_take_the_other(gate, tmp_path):
    async with upstream(gate, tmp_path) as site:
        streams = await opened(site, 10)
        await until(lambda: len(gate.opened) == 10)
        gate.accepting = False
        gate.cut_one(gate.muxes[0])
        await until(lambda: site.links == 1)
        codes = Counter([await code_of(stream) for stream in streams])
        assert codes == {messages.TUNNEL_LOST: 5, "": 5}
        assert site.known == {"one"}, "the other line still tells of it"
        for _ in range(20):
            site.tunnel.open(ASKED)
        gate.cut_one(gate.muxes[1])
        await until(lambda: site.links == 0)
        assert site.known == set()
        with pytest.raises(MuxClosed):
            site.tunnel.open(ASKED)


async def code_of(stream: Stream) -> str:
    """Why it ended; empty where it goes on."""
    if not stream.over:
        return ""
    with pytest.raises(StreamReset) as caught:
        await stream.response()
    return caught.value.code


async def test_the_newest_word_of_those_that_are_connected_counts(gate, tmp_path):
    gate.routes = routes(5, "one")
    async with upstream(gate, tmp_path) as site:
        first, second = gate.muxes

        async def told(mux, word: Routes, expected: set[str]) -> None:
            gate.applied.clear()
            mux.control(word)
            await until(lambda: gate.applied)
            assert site.known == expected

        await told(first, routes(6, "six"), {"six"})
        await told(second, routes(5, "five"), {"six"})
        await told(second, routes(7, "seven"), {"seven"})
        await told(first, routes(7, "as new"), {"seven"})
        await told(second, routes(7, "seven again"), {"seven again"})
        # An engine that began anew: both relays read its table, one before the other.
        await told(first, routes(1, "anew"), {"seven again"})
        await told(second, routes(1, "anew"), {"anew"})
        await told(second, routes(2, "second"), {"second"})
        gate.cut_one(second)
        await until(lambda: site.known == {"anew"})


async def test_an_order_holds_while_one_line_is_left_and_each_relay_is_told_so(gate, tmp_path):
    async with upstream(gate, tmp_path) as site:
        first, second = gate.muxes
        first.control(Admin(3, True))
        await until(lambda: [told.admin_revision for told in gate.applied].count(3) == 2)
        second.control(Admin(2, False))
        await until(lambda: [told.admin_revision for told in gate.applied].count(3) == 4)
        assert site.orders.maintenance
        second.control(Admin(3, True))
        gate.accepting = False
        gate.cut_one(first)
        await until(lambda: site.links == 1)
        assert site.orders.maintenance
        second.control(Admin(4, False))  # also an engine that began anew orders above what it hears of
        await until(lambda: not site.orders.maintenance)


async def test_one_line_alone_tells_of_the_queue(gate, tmp_path, monkeypatch):
    monkeypatch.setattr(tunnel, "METRICS_INTERVAL_S", 0.05)
    async with upstream(gate, tmp_path) as site:
        with site.table.waiting(site.table.services["chat"]):
            await until(lambda: any(told.queued for told in gate.metrics))
            gate.metrics.clear()
            await until(lambda: len(gate.metrics) >= 8)
            rounds = [told.queued for told in gate.metrics[:8]]
            assert rounds.count({"chat": 1}) == 4 and rounds.count({}) == 4
            gate.accepting = False
            gate.cut_one(gate.muxes[0])
            await until(lambda: site.links == 1)
            gate.metrics.clear()
            await until(lambda: gate.metrics)
            assert gate.metrics[0].queued == {"chat": 1}


# ---------------------------------------------------------------- an upgraded gate


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(line, "SPREAD_S", 0.05)
    monkeypatch.setattr(line, "LOOK_AGAIN_S", 0.05)


async def test_a_renewed_line_takes_new_streams_and_the_old_one_ends_with_its_last(gate, tmp_path, hasty):
    async with upstream(gate, tmp_path, 1) as site:
        old_stream = site.tunnel.open(ASKED)
        await until(lambda: gate.opened)
        seen = watch(site)
        [old] = gate.muxes
        old.control(Renew())
        await until(lambda: site.links == 2)
        new = gate.muxes[1]
        streams = [site.tunnel.open(ASKED) for _ in range(5)]
        await until(lambda: len(gate.opened) == 6)
        assert (len(old.streams), len(new.streams)) == (1, 5)
        gate.answers.clear()
        [waiting] = old.streams.values()
        waiting.respond(Head(200))
        waiting.end()
        old_stream.end()
        assert await old_stream.receive() == b""
        await until(lambda: old.closed and site.links == 1)
        assert not any(stream.over for stream in streams)
        assert {"one"} == seen.pop() and not seen, "reachable all the time"


def watch(site: Upstream) -> set[frozenset[str]]:
    """Everything that is known at any change of the table from now on."""
    seen: set[frozenset[str]] = set()
    rebuild = site.table._rebuild

    def watched() -> None:
        rebuild()
        seen.add(frozenset(site.known))

    site.table._rebuild = watched  # type: ignore[method-assign]
    return seen


async def test_a_line_holds_two_connections_at_most_however_often_it_is_renewed(gate, tmp_path, hasty):
    async with upstream(gate, tmp_path, 1) as site:
        site.tunnel.open(ASKED)
        gate.muxes[0].control(Renew())
        await until(lambda: len(gate.opened) == 1 and site.links == 2)
        await until(lambda: len(gate.muxes[1].streams) == 0 and len(gate.applied) > 1)
        site.tunnel.open(ASKED)
        await until(lambda: len(gate.opened) == 2)
        gate.muxes[1].control(Renew())
        waits = asyncio.create_task(until(lambda: len(gate.muxes) == 3))
        for _ in range(20):
            await asyncio.sleep(0.01)  # many times the spread
            assert site.links == 2
        gate.opened[0].reset(messages.REFUSED)
        await waits
        await until(lambda: site.links == 2 and gate.muxes[0].closed)
        assert not gate.opened[1].over


async def test_while_no_newer_gate_answers_the_old_one_serves_on(gate, tmp_path, hasty):
    async with upstream(gate, tmp_path, 1, Backoff(0.02, 0.05)) as site:
        [old] = gate.muxes
        gate.accepting = False
        old.control(Renew())
        await until(lambda: site.refused >= 3)
        site.tunnel.open(ASKED)
        await until(lambda: len(old.streams) == 1)
        gate.accepting = True
        await until(lambda: len(gate.muxes) == 2 and site.links == 2)
        site.tunnel.open(ASKED)
        await until(lambda: len(gate.muxes[1].streams) == 1)


async def test_an_old_gate_that_is_lost_before_there_is_a_newer_one_is_lost_as_ever(gate, tmp_path, hasty):
    async with upstream(gate, tmp_path, 1, Backoff(0.02, 0.05)) as site:
        [old] = gate.muxes
        gate.accepting = False
        old.control(Renew())
        await until(lambda: site.refused >= 1)
        gate.cut_one(old)
        await until(lambda: site.links == 0 and site.known == set())
        gate.accepting = True
        await until(lambda: site.links == 1 and site.known == {"one"})


async def test_an_old_gate_has_the_longest_time_of_a_request_and_no_more(gate, tmp_path, hasty):
    async with upstream(gate, tmp_path, 1, longest_s=0.1) as site:
        stream = site.tunnel.open(ASKED)
        gate.muxes[0].control(Renew())
        with pytest.raises(StreamReset) as caught:
            await stream.response()
        assert caught.value.code == messages.TUNNEL_LOST
        await until(lambda: site.links == 1)
        assert not gate.muxes[1].closed


async def test_lines_that_are_asked_at_once_are_renewed_one_after_the_other(gate, tmp_path, monkeypatch):
    monkeypatch.setattr(line, "SPREAD_S", 1.0)
    async with upstream(gate, tmp_path, 8) as site:
        site.connected_at.clear()
        for mux in gate.muxes[:8]:
            mux.control(Renew())
        await until(lambda: len(site.connected_at) == 8)
        assert site.connected_at[-1] - site.connected_at[0] > 0.1
        await until(lambda: site.links == 8)
        await until(lambda: [mux.closed for mux in gate.muxes] == [True] * 8 + [False] * 8)


async def test_a_retired_relay_goes_on_to_acknowledge_but_its_word_counts_no_more(gate, tmp_path, hasty):
    async with upstream(gate, tmp_path, 1) as site:
        site.tunnel.open(ASKED)
        [old] = gate.muxes
        old.control(Renew())
        await until(lambda: len(gate.muxes) == 2 and site.links == 2)
        await until(lambda: site.tunnel._teller is not None and not site.tunnel._teller.retired)
        old.control(routes(9, "of old"))
        old.control(Admin(1, True))
        gate.applied.clear()
        gate.muxes[1].control(Admin(1, True))
        await until(lambda: [told.admin_revision for told in gate.applied].count(1) == 2)
        assert site.known == {"one"}


# ---------------------------------------------------------------- as clients see it


async def test_clients_on_the_other_line_notice_nothing_of_a_torn_one(tmp_path):
    gate = Gate([service()], [instance("one")])
    go_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        stream.respond(Head(200, EVENTS))
        await stream.send(b"1")
        await go_on.wait()
        await stream.send(b"2")
        stream.end()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        await until(lambda: len(gate.applied) >= 3)  # both are in use: the second one's word was told to both
        calls = [asyncio.create_task(stream_of(proxy)) for _ in range(6)]
        await until(lambda: len(gate.opened) == 6)
        gate.cut_one(gate.muxes[0])
        await until(lambda: sum(call.done() for call in calls) == 3)
        assert [call.result() for call in calls if call.done()] == [None] * 3
        go_on.set()
        assert (await proxy.chat()).content == b"12", "at once, on the line that is left"
        assert sorted([await call or b"" for call in calls]) == [b""] * 3 + [b"12"] * 3


async def stream_of(proxy: Running) -> bytes | None:
    """An answer, whole; None for one that broke off."""
    try:
        return (await proxy.client.post("/v1/completions", content=BODY)).content
    except httpx.RemoteProtocolError:
        return None


async def test_a_single_line_is_all_there_is_where_one_is_asked_for(tmp_path):
    gate = Gate([service()], [instance("one")])
    plain = config(tmp_path, "a")
    single = replace(plain, upstreams=(replace(plain.upstreams[0], connections=1),))
    async with running(single, gate) as proxy:
        assert [(await proxy.chat()).status_code for _ in range(5)] == [200] * 5
        assert len(gate.muxes) == 1
