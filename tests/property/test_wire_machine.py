"""Any order of what two programs may do with a connection, and of what the network may do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saia_engine.wire import messages
from saia_engine.wire.mux import WINDOW
from saia_engine.wire.stream import StreamReset
from tests.property.wire_ends import LATE, End, World, settle

SIZES = st.sampled_from([1, 17, 1000, 70_000, WINDOW // 2, WINDOW, WINDOW + 1, 3 * WINDOW])
PIECES = st.sampled_from([1, 8, 13, 1000, 65536, 1 << 30])
CODES = st.sampled_from([messages.CANCELLED, messages.INSTANCE_LOST, messages.DRAINING])


class Connection(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world: World

    @initialize(limit=st.sampled_from([1 << 30, 300_000, 50_000]), streams=st.sampled_from([2000, 3]))
    def connect(self, limit: int, streams: int) -> None:
        async def make() -> None:
            self.world = World(limit, streams)
            await settle()

        self.limit, self.streams, self.acts = limit, streams, 0
        self.runner.run(make())
        for _ in range(3):
            self.do(self.world.open)

    def do(self, act: Callable[[], object]) -> None:
        async def step() -> None:
            self.acts += 1
            act()
            await settle()

        self.runner.run(step())

    def some(self, data: st.DataObject, of: Callable[[End], bool]) -> End | None:
        fitting = [end for end in self.world.all() if of(end)]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @precondition(lambda self: not self.world.torn and len(self.world.ends["proxy"]) < 8)
    @rule()
    def open(self) -> None:
        self.do(self.world.open)

    @rule(data=st.data())
    def respond(self, data: st.DataObject) -> None:
        end = self.some(data, lambda end: end.live and not end.answered)
        if end is None:
            self.runner.run(self.world.pump()) if not self.world.torn else None
        else:
            self.do(end.respond)

    @rule(data=st.data(), size=SIZES, pieces=st.sampled_from([1, 2, 50]))
    def send(self, data: st.DataObject, size: int, pieces: int) -> None:
        end = self.some(data, lambda end: end.may_send)
        if end is not None:
            self.do(lambda: end.send(size, pieces))

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        end = self.some(data, lambda end: end.may_read)
        if end is not None:
            self.do(end.read)

    @rule(data=st.data())
    def think_better_of_reading(self, data: st.DataObject) -> None:
        end = self.some(data, lambda end: end.reading is not None)
        if end is not None and end.reading is not None:
            self.do(end.reading.cancel)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        end = self.some(data, lambda end: end.may_send)
        if end is not None:
            self.do(end.end)

    @rule(data=st.data(), code=CODES)
    def reset(self, data: st.DataObject, code: str) -> None:
        end = self.some(data, lambda end: end.live and not end.stream.over)
        if end is not None:
            self.do(lambda: end.reset(code))

    @rule(up=st.booleans(), size=PIECES, times=st.integers(1, 10))
    def deliver(self, up: bool, size: int, times: int) -> None:
        way = self.world.up if up else self.world.down

        async def deliver() -> None:
            for _ in range(times):
                way.deliver(size)
                await settle()
                self.world.check()

        self.runner.run(deliver())

    @precondition(lambda self: not self.world.torn)
    @rule()
    def let_all_arrive(self) -> None:
        """Then both sides think alike of each stream."""
        self.runner.run(self.world.pump())
        for number, proxys in self.world.ends["proxy"].items():
            gates = self.world.ends["gate"].get(number)
            assert proxys.stream.over == (gates is None or gates.stream.over)
            if gates is not None and not (proxys.live and gates.live):
                assert proxys.stream.over and gates.stream.over, "a reset did not reach the other side"
            elif gates is not None:
                for sender, reader in ((proxys.stream, gates.stream), (gates.stream, proxys.stream)):
                    if not reader._peer_ended:
                        assert sender._credit + reader._buffered + reader._taken == WINDOW, "credit leaks"

    @precondition(lambda self: not self.world.torn)
    @rule(data=st.data(), size=SIZES)
    def one_goes_on_whoever_does_not_read(self, data: st.DataObject, size: int) -> None:
        self.runner.run(self.world.pump())
        sender = self.some(data, lambda end: end.may_send and self.world.other(end) is not None)
        reader = None if sender is None else self.world.other(sender)
        if sender is None or reader is None or not reader.live or reader.saw_end:
            return

        async def carry() -> None:
            sender.send(size)
            for _ in range(200):
                if reader.may_read:
                    reader.read()
                await self.world.pump()
                if not sender.live or (sender.sending is None and reader.received == sender.given):
                    return
            raise AssertionError("a stream that is read stood still")

        self.runner.run(carry())
        assert sender.live or (sender.failure is not None and sender.failure.code in LATE)

    @precondition(lambda self: not self.world.torn and self.acts > 25)
    @rule(who=st.sampled_from(["network", "proxy", "gate"]))
    def tear(self, who: str) -> None:
        self.do(self.world.tear if who == "network" else lambda: self.world.close(who))

    @precondition(lambda self: self.world.torn)
    @rule()
    def connect_again(self) -> None:
        self.runner.run(self.world.finish())
        self.connect(self.limit, self.streams)

    @invariant()
    def nothing_is_lost_or_too_much(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.runner.run(self._finish())
        finally:
            self.runner.close()

    async def _finish(self) -> None:
        if self.acts % 3 == 0 and not self.world.torn:
            self.world.tear()
        await self.world.finish()
        if not self.world.torn:
            assert not self.world.proxy.closed and not self.world.gate.closed
            for end in self.world.all():
                if end.failure is not None:
                    assert isinstance(end.failure, StreamReset)
                    assert end.failure.code != messages.TUNNEL_LOST
        self.world.tear()


Connection.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestConnection = Connection.TestCase
