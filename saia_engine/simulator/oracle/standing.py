"""What an engine can know and must reckon with: who takes a slot, who leaves, whose replacement can be due."""

from __future__ import annotations

from itertools import pairwise

from saia_engine.simulator.oracle import grace, timeline
from saia_engine.simulator.oracle.ledger import Ledger
from saia_engine.simulator.oracle.records import EngineSeen, JobSeen, Token


def deaf(ledger: Ledger, token: Token, since: float) -> bool:
    """Whether an order may not have reached its agent, at some moment since then."""
    agent, job = ledger.agents.get(token.instance), token.job
    if agent is None or job is None or agent.generation != job.restarts:
        return True
    if agent.state == "gone" or not agent.reachable or agent.reached_since >= since - grace.HEARING_S:
        return True
    return agent.began_at + ledger.began.shared_delay_s + grace.HEARING_S >= since


def silent(ledger: Ledger, token: Token, since: float) -> bool:
    """Whether its agent or service may have seemed ill at some moment since then."""
    agent = ledger.agents.get(token.instance)
    if agent is None or not agent.ready:
        return True
    return agent.left_ready_at >= since - grace.INFORMED_S


def leaving(ledger: Ledger, token: Token, since: float) -> bool:
    """Whether the engine may have ordered it out, heard or not, in [.., now]."""
    job, agent, now = token.job, ledger.agents.get(token.instance), ledger.now
    if max(token.cancelled_at, token.ordered_out_at) > token.called_at:
        return True
    if job is None:
        return ledger.wished_more_since(token.service, token.called_at)
    if (
        agent is not None
        and agent.generation == job.restarts
        and (agent.draining or agent.withdrawn_at >= since)
    ):
        return True
    if job.started_at is None:
        return _unwanted_since_its_call(ledger, token) or job.restarted_at >= since
    if deaf(ledger, token, since):
        return True
    wish = ledger.last_wish(token.service)
    return wish is not None and any(
        end is not None and now >= timeline.admit_until(end, wish) - grace.ROUNDING_S
        for end in job.ends_since(since)
    )


def _unwanted_since_its_call(ledger: Ledger, token: Token) -> bool:
    """Fewer were wanted, or another revision, since it was submitted."""
    wishes = ledger.wishes_since(token.service, token.called_at)
    counts = [w.replicas if w else 0 for w in wishes]
    revisions = {w.revision for w in wishes if w}
    return (
        len(revisions) > 1
        or (token.revision != "" and token.revision not in revisions)
        or _has_fallen(counts)
    )


def _has_fallen(newest_first: list[int]) -> bool:
    return any(newer < older for newer, older in pairwise(newest_first))


def occupying(ledger: Ledger, service: str, since: float) -> list[Token]:
    """Launches that an engine must reckon with: each takes a slot, and none of them may be on its way out."""
    return [t for t in ledger.live.get(service, {}).values() if _counts(ledger, t, since)]


def _counts(ledger: Ledger, token: Token, since: float) -> bool:
    if token.written_off or token.forgotten:
        return False
    if token.job is not None and not token.job.live and not token.job.lost:
        return False
    return not leaving(ledger, token, since)


def can_be_due(ledger: Ledger, token: Token, since: float) -> bool:
    """Whether some lead, a node's trouble, an illness or an operator can have asked for its replacement."""
    return (silent(ledger, token, since) and _has_started(token)) or can_leave(ledger, token, since)


def _has_started(token: Token) -> bool:
    return token.job is not None and token.job.started_at is not None


def can_leave(ledger: Ledger, token: Token, since: float) -> bool:
    """The same, its own health aside."""
    job = token.job
    if job is None or job.started_at is None:
        return False
    if token.replace_asked or _node_in_trouble(ledger, job, since):
        return True
    poll_s = ledger.began.poll_s
    for wish in ledger.wishes_since(token.service, since):
        if wish is None:
            continue
        for end in job.ends_since(since):
            first = foreseen_end(ledger, job, end, since)
            if (
                first is not None
                and ledger.now >= timeline.earliest_submit(first, wish, poll_s) - grace.ROUNDING_S
            ):
                return True
    return False


def foreseen_end(ledger: Ledger, job: JobSeen, end: float | None, since: float) -> float | None:
    """Its end, or the start of a maintenance window of its node that comes before; as it was at some time since."""
    for window in ledger.windows_since(since):
        if job.node in window.nodes and window.end > ledger.now and (end is None or window.start < end):
            end = window.start
    return end


def _node_in_trouble(ledger: Ledger, job: JobSeen, since: float) -> bool:
    if (
        job.node in ledger.excluded
        or job.node in ledger.unusable
        or ledger.usable_since.get(job.node, 0.0) >= since
    ):
        return True
    failed_at = ledger.failed_on.get(job.node)
    return failed_at is not None and ledger.now - failed_at <= 2 * grace.HOUR_S


def rolling(ledger: Ledger, service: str, tokens: list[Token], since: float) -> int:
    """How many more a rollout may run at some moment since then."""
    wishes = [w for w in ledger.wishes_since(service, since) if w]
    if not wishes:
        return 0
    wanted = wishes[0].revision
    mixed = any(t.revision and t.revision != wanted for t in tokens) or len({w.revision for w in wishes}) > 1
    return max(w.max_surge for w in wishes) if mixed else 0


def maybe_frozen(ledger: Ledger) -> bool:
    """Whether an engine may hold everything back, because many jobs seem to be gone."""
    missing = sum(
        1
        for tokens in ledger.live.values()
        for token in tokens.values()
        if token.missing_since is not None and not token.written_off
    )
    return missing >= 2


def hindered(ledger: Ledger) -> bool:
    """Whether something keeps every engine from doing its work now."""
    if not ledger.controller_up or maybe_frozen(ledger):
        return True
    return not any(e.quality == "good" and may_act(ledger, e) for e in ledger.acting())


def may_act(ledger: Ledger, engine: EngineSeen) -> bool:
    """Whether no newer lease than its own has been written."""
    return not ledger.leases or len(ledger.leases) == engine.turn + 1


def catch_up_s(ledger: Ledger) -> float:
    """How long an engine that is not hindered may need to do what is due: the next poll, slow commands before it."""
    began = ledger.began
    return 2 * began.poll_s + grace.ACTS_AT_ONCE * began.command_timeout_s + grace.REACT_S


def ready_others(ledger: Ledger, token: Token, min_ready_s: float, since: float) -> list[Token]:
    """Who else of its service serves, does not drain, and has been ready for so long; or so it may have seemed."""
    found = []
    for other in (*ledger.live.get(token.service, {}).values(), *ledger.unseen_ends.get(token.service, ())):
        agent = ledger.agents.get(other.instance)
        if other is token or agent is None or agent.draining or agent.ready_since is None or not agent.served:
            continue
        lost_it = not agent.ready and agent.left_ready_at < since - grace.INFORMED_S
        if not lost_it and ledger.now - agent.ready_since >= min_ready_s - grace.ROUNDING_S:
            found.append(other)
    return found
