"""Slurm's answers to the engine: what they cost, and when they must freeze it (promises 7 and 17)."""

from __future__ import annotations

from collections import deque

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import grace, standing
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.ledger import BAD, Ledger
from saia_engine.simulator.oracle.records import FAR_PAST, EngineSeen, Token


class Answers:
    """Judges an answer after the ledger has taken it."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._report = findings.report
        self._later = findings.later
        self._unfrozen_at = FAR_PAST
        self._asked: dict[str, deque[float]] = {}

    def engine_started(self, event: truth.EngineStarted) -> None:
        engine = self._ledger.engines[event.engine]
        self._later(event.at + grace.IDLE_ENGINE_S, lambda: self._asks_on(engine, None))

    def answered(self, answer: truth.Answered) -> None:
        self._cost(answer)
        engine = self._ledger.engines.get(answer.engine)
        if engine is not None:
            self._later(answer.at + grace.IDLE_ENGINE_S, lambda: self._asks_on(engine, answer.began))
        if engine is not None and answer.quality not in BAD:
            self._freeze(engine, answer)

    def ordered(self, order: truth.OperatorOrdered) -> None:
        """An operator's word ends a freeze, for all that was gone by then."""
        if "freeze" in order.verb:
            self._unfrozen_at = order.at
            for engine in self._ledger.running:
                engine.frozen_at, engine.frozen_services = None, frozenset()

    def _cost(self, answer: truth.Answered) -> None:
        """One observation in each tick, of a fixed number of commands."""
        if answer.calls > grace.CALLS_A_TICK:
            self._report(17, f"{answer.engine} asked Slurm {answer.calls} times in one tick", answer.engine)
        asked = self._asked.setdefault(answer.engine, deque(maxlen=3))
        asked.append(answer.began)
        # The first tick after a start may be cut short, so that all are whole from then on.
        if len(asked) == 3 and asked[2] - asked[0] < self._ledger.began.poll_s - grace.ROUNDING_S:
            self._report(
                17,
                f"{answer.engine} asked Slurm three times in {asked[2] - asked[0]:.1f} s,"
                f" where a tick is {self._ledger.began.poll_s:.0f} s",
                answer.engine,
            )

    def _asks_on(self, engine: EngineSeen, asked_at: float | None) -> None:
        """An engine that acts asks anew at each poll: all else rests on it (13, 22)."""
        able = engine.acting and standing.may_act(self._ledger, engine)
        asked = self._asked.get(engine.name)
        if able and (asked[-1] if asked else None) == asked_at:
            self._report(
                13, f"{engine.name} has not asked Slurm for {grace.IDLE_ENGINE_S:.0f} s", engine.name
            )

    def _freeze(self, engine: EngineSeen, answer: truth.Answered) -> None:
        """Only what no reading of the promise can leave out: surely gone against all that may be known."""
        known, gone = 0, []
        for tokens in self._ledger.live.values():
            for token in tokens.values():
                if not token.shown or token.written_off or token.cancelled_at > FAR_PAST:
                    continue
                known += 1
                if self._surely_gone(token, answer):
                    gone.append(token)
        known += sum(1 for tokens in self._ledger.live.values() for t in tokens.values() if _may_be_known(t))
        frozen = len(gone) >= 2 and 2 * len(gone) >= known
        engine.frozen_services = frozenset(t.service for t in gone) if frozen else frozenset()
        if not frozen:
            engine.frozen_at = None
        elif engine.frozen_at is None:
            engine.frozen_at = answer.at

    def _surely_gone(self, token: Token, answer: truth.Answered) -> bool:
        job = token.job
        if job is None or token.missing_since is None or answer.quality == "stale":
            return False
        if token.missing_since <= self._unfrozen_at:
            return False
        agent = self._ledger.agents.get(token.instance)
        if agent is not None and agent.state == "gone":
            return False  # it may have left its word
        if agent is not None and (not agent.reachable or agent.reached_since >= token.missing_since):
            return False  # its agent may be silent to the engine, too
        if job.end is not None and answer.began >= job.end - grace.ROUNDING_S:
            return False  # what came before may have been doubted, and then it was gone at its end
        return answer.quality == "empty" or job.lost


def _may_be_known(token: Token) -> bool:
    """It may have been seen by an answer that the oracle does not count on."""
    return not token.shown and token.job is not None
