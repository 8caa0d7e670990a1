"""What a simulated gate does beyond passing requests on, is told of."""

from __future__ import annotations

import subprocess

import pytest

from saia_engine.simulator import gates
from saia_engine.simulator.oracle import Oracle
from saia_engine.simulator.truth import CancelCalled, SubmitCalled
from saia_engine.simulator.world import Recorder, World


@pytest.mark.parametrize(("program", "kind"), [("scancel", CancelCalled), ("/usr/bin/sbatch", SubmitCalled)])
def test_a_program_of_slurms_that_a_gate_starts_is_told_of_and_does_not_run(
    program, kind, monkeypatch
) -> None:
    def faulty(asked, route, now):
        with pytest.raises(FileNotFoundError):
            subprocess.run([program, "--name=saia.k7f3.hpc.tiny.00000001"], check=False)

    recorder, oracle = Recorder(), Oracle()
    world = World(1, [recorder, oracle])
    world.begin()
    world.run_until(world.site.now + 600.0)
    monkeypatch.setattr(gates, "admit", faulty)
    world.gates["a"].open("tiny")
    world.close()
    told = [event for event in recorder.events if isinstance(event, kind) and event.engine == "gate-a"]
    assert {event.name for event in told} == {"saia.k7f3.hpc.tiny.00000001"}
    assert 21 in {violation.promise for violation in oracle.violations}


def test_programs_that_others_start_run() -> None:
    assert subprocess.run(["true"], check=False).returncode == 0
