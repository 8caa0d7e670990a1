"""The independent judge of a simulated site: it sees what really happens there, and knows the promises by heart.

It imports nothing of the engine. What the engine can have known it reckons from the answers that Slurm gave it; what
it was bound to do, from the design's timeline. Each tolerance is named in `grace`.
"""

from __future__ import annotations

from saia_engine.simulator import truth
from saia_engine.simulator.oracle.acts import Acts
from saia_engine.simulator.oracle.answers import Answers
from saia_engine.simulator.oracle.drains import Drains
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.leases import Leases
from saia_engine.simulator.oracle.ledger import Ledger
from saia_engine.simulator.oracle.progress import Progress
from saia_engine.simulator.oracle.traffic import Traffic
from saia_engine.simulator.truth import Event, Violation

__all__ = ["Oracle"]


class Oracle:
    """An observer of the world: `violations` holds what it has found, in order."""

    def __init__(self) -> None:
        ledger = self._ledger = Ledger()
        findings = self._findings = Findings(ledger)
        acts, answers, drains = Acts(ledger, findings), Answers(ledger, findings), Drains(ledger, findings)
        traffic, progress = Traffic(ledger, findings), Progress(ledger, findings)
        leases = Leases(ledger, findings)
        self._before = {truth.SubmitCalled: acts.submit, truth.CancelCalled: acts.cancel}
        """A call is judged against what was so when it came."""
        self._after = {
            truth.Began: (leases.idle_from,),
            truth.SubmitCalled: (acts.submitted,),
            truth.SubmitRefused: (acts.refused, progress.refused),
            truth.JobAccepted: (acts.accepted,),
            truth.JobChanged: (acts.ended, progress.job),
            truth.Answered: (acts.answered, answers.answered, progress.answered),
            truth.Configured: (acts.configured,),
            truth.OperatorOrdered: (answers.ordered, drains.ordered),
            truth.EngineStarted: (acts.engine_started, answers.engine_started, leases.started),
            truth.EngineRefused: (leases.refused,),
            truth.EngineEnded: (leases.idle_from, acts.stopped, progress.stopped),
            truth.JournalRefused: (leases.idle_from, acts.stopped, progress.stopped),
            truth.AgentChanged: (traffic.agent, progress.look_at),
            truth.AgentReachable: (traffic.agent, progress.look_at),
            truth.DrainHeard: (drains.heard,),
            truth.RoutesRead: (traffic.read, progress.look_at),
            truth.RequestOpened: (traffic.opened,),
            truth.RequestEnded: (drains.cut,),
            truth.FaultBegan: (progress.fault,),
            truth.FaultsStopped: (progress.faults_stopped,),
            truth.RoomPromised: (progress.room,),
        }

    @property
    def violations(self) -> list[Violation]:
        return self._findings.violations

    def see(self, event: Event) -> None:
        kind = type(event)
        self._findings.run_until(event.at)
        self._ledger.now = event.at
        before = self._before.get(kind)
        if before is not None:
            before(event)  # type: ignore[arg-type]
        self._ledger.apply(event)
        for after in self._after.get(kind, ()):
            after(event)  # type: ignore[operator]

    def finish(self, at: float) -> None:
        """The run ends: what was due before is judged, what is not yet due is let go."""
        self._findings.run_until(at)
