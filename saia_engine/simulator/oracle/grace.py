"""What the oracle forgives: each tolerance with its reason. All in seconds.

Too short cries wolf, too long sleeps; so each is the sum of what really has to pass, not a round guess.
"""

from __future__ import annotations

ROUNDING_S = 1.5
"""Slurm prints whole seconds; two of them subtracted are off by at most so much."""
AGENT_WORD_S = 10.0
"""An agent's silence counts after so long, and its last word so long."""
HEARING_S = 15.0
"""From an order to the agent's ear: a status interval, a retry and a reply's time-out; also how long one that
could not be reached just now may still lack an order."""
INFORMED_S = 20.0
"""From a change at an agent to the engine's plan: what it said last counts AGENT_WORD_S, plus a round of talk."""
UNPROVEN_S = INFORMED_S + 36.0
"""One that was ready for less may never have proven itself: it may have hung three probes of its agent (36) before
that said so."""
LATE_S = 45.0
"""A submit that is accepted later than this had no answer (30) and was missing from the next poll (15)."""
FLAP_S = 15.0
"""A readiness that was away for less than this may never have been noticed."""
UNROUTE_S = 60.0
"""From a service that does not answer to gates without its route: three probes of its agent with their time-outs
(30), a silent agent (10), a status (2), a plan (1) and the gate's look at its file, with room for a slow one."""
ROUTES_S = 10.0
"""From an answer of Slurm to the gates' table: a plan and the gate's look at its file."""
GATE_CLOCK_S = 2.0
"""A gate tells the time of a request within so much."""
REACT_S = 8.0
"""Time alone makes an act due; the simulated engine makes a plan at least every five seconds, and writes it down."""
NEXT_ACT_S = 1.0
"""Acts of one plan follow each other within so much."""
INTENT_S = 90.0
"""From an engine's start to the answers that prove that what its predecessor was about to submit never came:
MessageTimeout and a poll between two good ones, and polls that fail."""
LEASE_GAP_S = 5.0
"""From the look at the lease to the act that it allows: the instance directory is written in between."""
STALE_REACH_S = 600.0
"""A stale answer may show what was so long ago."""
BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 300.0
STEADY_S = 600.0
"""Who lived longer was no crash."""
COMPLETING_S = 90.0
"""Who hangs in COMPLETING for longer may be given up before it has ended."""
APART_S = 60.0
"""Ends nearer to each other may have come to light together, and are one failure."""
HOUR_S = 3600.0
HOUR_EDGE_S = 10.0
"""An intent is counted from when it was written down, its submit begins up to so much later."""
CANCEL_AGAIN_S = 30.0
"""A cancel that was lost is sent again so late."""
KILLED_S = 90.0
"""From an scancel that arrived to the end of the job: KillWait, then COMPLETING."""
ACTS_AT_ONCE = 4
"""So many commands may run into their time-out one after another before the next poll."""
JUMP_BLAME_S = 90.0
"""What is wrong so soon after a jump of a clock, the jump has caused."""
STARTUP_S = 1800.0
UNREADY_S = 180.0
"""Deadlines where the wish names none."""
ALARM_S = 120.0
"""From a deadline that passed to an alarm: the longest state deadline without a name of its own."""
KILL_WINDOW_S = 300.0
"""At most one instance of a service is ended for its health in so long."""
IDLE_ENGINE_S = 300.0
"""A poll, all the acts of a plan that hang, and room."""
CALLS_A_TICK = 6
"""Commands of one observation; a constant, however many services there are."""
AGAIN_S = 3600.0
"""The same fault of the same thing is told once in so long."""
