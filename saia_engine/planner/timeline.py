"""The timeline of an instance: when what must happen before its job ends. The only definition.

    submit_by --lead--> ready --min_ready--> drain_by ----> admit_until ----> last_cut --safety_margin--> end

All of it follows from `end`, which is Slurm's and read anew at each poll. Times are epoch seconds.
"""

from __future__ import annotations

from saia_engine.model import Timing


def last_cut(end: float, timing: Timing) -> float:
    """From here on open streams may be cut: what is left absorbs clock skew and Slurm's KillWait."""
    return end - timing.safety_margin_s


def admit_until(end: float, timing: Timing) -> float:
    """No new request after it; one taken just before has `admission_margin_s` to end whole."""
    return last_cut(end, timing) - timing.admission_margin_s


def drain_by(end: float, timing: Timing) -> float:
    """A drain that starts here has `drain_deadline_s` until the last cut."""
    return last_cut(end, timing) - timing.drain_deadline_s


def submit_by(end: float, timing: Timing, lead_s: float, poll_s: float) -> float:
    """When to submit the replacement, so that it is proven by `drain_by`.

    Two polls: one to see that this moment has come, one to see that the replacement is ready.
    """
    return drain_by(end, timing) - timing.min_ready_s - lead_s - 2 * poll_s


def shortest_terms(timing: Timing, poll_s: float) -> tuple[tuple[str, float], ...]:
    """What a time limit must have room for: (name, seconds) in the order of the timeline."""
    return (
        ("lead_floor", timing.lead_floor_s),
        ("min_ready", timing.min_ready_s),
        ("drain_deadline", timing.drain_deadline_s),
        ("safety_margin", timing.safety_margin_s),
        ("2 polls", 2 * poll_s),
    )


def shortest_time_limit(timing: Timing, poll_s: float) -> float:
    """A time limit (s) must be longer than this, or a replacement is due before the instance has started."""
    return sum(seconds for _, seconds in shortest_terms(timing, poll_s))


def drain_covers_admission(timing: Timing) -> bool:
    """Whether `drain_by` comes no later than `admit_until`, as the timeline's order needs."""
    return timing.drain_deadline_s >= timing.admission_margin_s
