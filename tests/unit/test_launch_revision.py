"""The revision of a launch spec: a change in it relaunches, so an upgrade of ours must not change it."""

from __future__ import annotations

from dataclasses import replace

from saia_engine.model import LaunchSpec, ProbeSpec

SPEC = LaunchSpec(command=("serve", "{port}"), gres="gpu:1", readiness_path="/ready")


def test_revisions_of_earlier_versions_stand() -> None:
    assert LaunchSpec().revision == "44136fa355b3"
    assert SPEC.revision == "5a3a9b677e79"


def test_a_probe_changes_the_revision_and_so_does_each_of_its_fields() -> None:
    probes = [
        ProbeSpec(),
        ProbeSpec(kind="completion"),
        ProbeSpec(path="/alive"),
        ProbeSpec(model="llama"),
        ProbeSpec(interval_s=3.0),
        ProbeSpec(timeout_s=3.0),
        ProbeSpec(failures=1),
    ]
    revisions = {replace(SPEC, liveness=probe).revision for probe in probes}
    assert len(revisions | {SPEC.revision, replace(SPEC, readiness=ProbeSpec()).revision}) == len(probes) + 2


def test_only_what_differs_from_a_probes_defaults_is_hashed() -> None:
    """So that a field that a later version adds to probes leaves the revision as it is."""
    assert replace(SPEC, liveness=ProbeSpec(path="/alive")).revision == "2a916b843491"


def test_without_a_probe_of_its_own_readiness_asks_the_readiness_path() -> None:
    assert SPEC.readiness_probe == ProbeSpec(path="/ready")
    own = ProbeSpec(kind="completion", path="/v1/chat/completions", model="llama")
    assert replace(SPEC, readiness=own).readiness_probe == own
