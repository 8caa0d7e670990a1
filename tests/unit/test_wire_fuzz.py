"""Some seconds of `make fuzz`, and that it is awake: a planted bug of each kind is found, and found again."""

from __future__ import annotations

import os

import pytest

from saia_engine import agent, front
from saia_engine.gate import http1
from saia_engine.wire import messages, mux, stream
from tests.fuzz import wire

SEED = int(os.environ.get("SAIA_FUZZ_SEED", "7"))


def test_nothing_that_reads_bytes_from_another_host_is_broken_by_them():
    findings = wire.fuzz(SEED, cases=300)
    assert not findings.failures, "\n\n".join(findings.failures)
    assert set(findings.cases) == set(wire.TARGETS)


def forget_the_offset(self, data):
    self._chunks.append(data[1:])
    self._buffered += len(data) - 1
    self._mux.buffered += len(data) - 1
    self._readable.ring()


def lose_single_bytes(self, data):
    if len(data) > 1:
        self.chunks.append(data)
        self.size += len(data)


def stand_still(_):
    while True:
        pass


BUGS = {
    "an exception that has no name": ("gate-mux", messages, "_UNREADABLE", ()),
    "bytes that were not sent": ("gate-mux", stream.Stream, "_got_data", forget_the_offset),
    "a reader that is never woken": ("proxy-mux", mux.Stream, "_fail", lambda *_, **__: None),
    "a hang": ("proxy-mux", stream.Bell, "ring", stand_still),
    "a proof that nobody looks at": ("gates-proof", front._Handshake, "_matches", lambda *_: True),
    "a door that is open": ("agents-door", agent.hmac, "compare_digest", lambda *_: True),
    "bytes that hang on their pieces": ("http-response", http1._Response, "push", lose_single_bytes),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_its_command_finds_it_again(bug, monkeypatch):
    target, owner, name, planted = BUGS[bug]
    monkeypatch.setattr(owner, name, planted)
    monkeypatch.setattr(wire, "HANG_S", 1 if bug == "a hang" else 10)
    findings = wire.fuzz(SEED, cases=300, targets=[target], most_failures=1)
    assert findings.failures, "the fuzzer sleeps"
    command = findings.failures[0].splitlines()[-1]
    number = int(command.split("--case ")[1].split()[0])
    assert command == wire.replay(SEED, number, target)
    assert wire.run_case(SEED, number, target)
    monkeypatch.undo()
    assert not wire.run_case(SEED, number, target)
