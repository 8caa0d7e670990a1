"""The design's timeline in the oracle's own arithmetic: what follows from a job's end and its service's durations."""

from __future__ import annotations

from saia_engine.simulator.truth import Wish


def last_cut(end: float, wish: Wish) -> float:
    return end - wish.safety_margin_s


def admit_until(end: float, wish: Wish) -> float:
    return end - wish.safety_margin_s - wish.admission_margin_s


def submit_by(end: float, wish: Wish, lead_s: float, poll_s: float) -> float:
    return end - wish.safety_margin_s - wish.drain_deadline_s - wish.min_ready_s - lead_s - 2.0 * poll_s


def earliest_submit(end: float, wish: Wish, poll_s: float) -> float:
    """Before this no lead can ask for a replacement."""
    return submit_by(end, wish, longest_lead(wish, poll_s), poll_s)


def longest_lead(wish: Wish, poll_s: float) -> float:
    """Its cap, or what the time limit leaves beside the other terms."""
    room_s = submit_by(wish.time_limit_s, wish, 0.0, poll_s)
    return max(wish.lead_floor_s, min(room_s, wish.lead_cap_s) if wish.lead_cap_s else room_s)


def latest_submit(end: float, wish: Wish, poll_s: float) -> float:
    """By now even the shortest lead does."""
    return submit_by(end, wish, wish.lead_floor_s, poll_s)
