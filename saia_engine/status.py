"""What `saia-engine status` and `plan` print: text of one width, safe in any terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from saia_engine.client import Tables
from saia_engine.edge.durations import show
from saia_engine.edge.text import clean, plain
from saia_engine.explain import why_lines, wrapped
from saia_engine.model import State, short_id
from saia_engine.view import (
    TABLES,
    EngineView,
    InstanceView,
    ProxyView,
    ServiceView,
    key_order_words,
    whole_row,
)

WIDEST_CELL = 60
_WORST_FIRST = {"critical": 0, "warning": 1, "info": 2}
_OVER = frozenset({str(State.STOPPED), str(State.FAILED)})


def status_lines(tables: Tables) -> list[str]:
    """Alarms first, the worst at the top; then services, living instances and proxies."""
    engine = tables.engine
    if engine is None:
        return ["the engine has started, but shows nothing yet: try again in a moment"]
    now = engine.now
    blocks = [
        _head(engine),
        _alarms(tables, now),
        _table(
            "SERVICE STATUS READY STARTING DRAINING MIN REQ/S IN-FLIGHT NEXT-END OVERRIDE".split(),
            [_service(row, now) for _, row in sorted(tables.services.items())],
            "no services are configured",
        ),
        _plans_for_services(tables),
        _table(
            "INSTANCE STATE FOR LEFT OPEN JOB NODE REASON".split(),
            [_instance(row, now) for row in living(tables)],
            "no instances live",
        ),
        _table(
            "PROXY TUNNEL SINCE RELAYS IN-FLIGHT MAINTENANCE KEYS".split(),
            [_proxy(row, now) for _, row in sorted(tables.proxies.items())],
            "no proxies are configured",
        ),
        _exclusions(tables, now),
    ]
    lines = [line for block in blocks if block for line in (*block, "")]
    return lines[:-1]


def state_json(tables: Tables) -> str:
    """All tables as one JSON object; unlike on the wire, every field of every row is there."""
    engine = {"engine": tables.engine} if tables.engine else {}
    state = {name: engine if name == "engine" else getattr(tables, name) for name in TABLES}
    full = {name: {key: whole_row(row) for key, row in rows.items()} for name, rows in state.items()}
    return msgspec.json.encode(full).decode()


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The acts, then what waits, each with the inputs that decided it and what was refused; then alarms."""
    actions, waiting, alarms = (plan.get(key) or [] for key in ("actions", "waiting", "alarms"))
    lines = []
    for act in actions:
        lines += wrapped("", f"{plain(act.get('act'))} {plain(act.get('subject'))}: {_because(act)}", "    ")
        lines += why_lines(act, "    ")
    for reason in waiting:
        lines += wrapped("", f"waits: {_because(reason)}", "    ")
        lines += why_lines(reason, "    ")
    lines += [
        f"{plain(a.get('severity'))}: {plain(a.get('subject'))}: {plain(a.get('text'))}" for a in alarms
    ]
    return lines or ["nothing to do: all is as it should be"]


def key_lines(answer: Mapping[str, Any]) -> list[str]:
    """The API keys of one proxy."""
    now = answer["now"]
    lines = _table(
        "KEY STATE AT-ONCE A-MINUTE IN-FLIGHT REQUESTS REFUSED MODELS ORDERED IN-FORCE BY".split(),
        [_key(row, now) for row in answer["keys"]],
        "it tells of no keys, and nothing is ordered",
    )
    proxy = clean(str(answer["proxy"]))
    if not answer["connected"]:
        lines.append(f"! {proxy} is away: what it has, and what is in force there, is not known")
    elif not answer["acknowledged"]:
        lines.append(f"! {proxy} has not acknowledged the newest order yet")
    return lines


def change_lines(preview: Mapping[str, Any]) -> list[str]:
    """What a changed configuration file would change; see `config_changes`."""
    if not preview["changed"]:
        return [f"{plain(preview['file'])}: nothing changed"]
    lines = []
    for kind in ("service", "proxy"):
        for row in preview["services" if kind == "service" else "proxies"]:
            lines.append(f"{kind} {plain(row[kind])}: {plain(row['change'])}")
            lines += [f"    {_field_change(field)}" for field in row["fields"]]
            lines += [
                line for means in row.get("means", ()) for line in wrapped("    => ", plain(means), "       ")
            ]
    for row in preview["settings"]:
        note = " (counts after a restart of the engine)" if row["needs_restart"] else ""
        lines.append(f"{_field_change(row)}{note}")
    return lines


def _field_change(field: Mapping[str, Any]) -> str:
    return f"{plain(field['field'])}: {plain(field['before']) or '-'} -> {plain(field['after']) or '-'}"


def _key(row: Mapping[str, Any], now: float) -> list[str]:
    said, ordered = row["said"], row["ordered"]
    if said is None:
        facts = ["not there", "-", "-", "-", "-", "-", "-"]
    else:
        facts = [
            "revoked" if said["revoked"] else "ok",
            str(said["concurrency"] or "-"),
            str(said["per_minute"] or "-"),
            *(str(said[figure]) for figure in ("in_flight", "requests", "refused")),
            said["models"] or "-",
        ]
    order, by = "-", "-"
    if ordered is not None:
        order, by = key_order_words(ordered), f"uid {ordered['uid']}, {_span(ordered['at'], now)} ago"
    in_force = ("yes" if ordered else "-") if row["in_force"] else "not yet"
    return [row["name"], *facts, order, in_force, by]


def _because(reason: Mapping[str, Any]) -> str:
    return f"{plain(reason.get('text'))} ({plain(reason.get('rule'))})"


def _head(engine: EngineView) -> list[str]:
    slurm = "Slurm" if engine.kind == "slurm" else "local cluster"
    heard = (
        "has not answered yet"
        if engine.snapshot_at is None
        else f"seen {_span(engine.snapshot_at, engine.now)} ago"
    )
    lines = [
        f"{clean(engine.cluster)} ({clean(engine.installation)}) on {clean(engine.host)} (pid {engine.pid}),"
        f" saia {clean(engine.version)},"
        f" up {_span(engine.started_at, engine.now)}; {slurm} {heard}"
    ]
    if engine.slurm_fault:
        lines.append(f"! {slurm} does not answer well: {clean(engine.slurm_fault)}")
    if not engine.acting:
        lines.append(f"! it only watches: {clean(engine.not_acting_because)}")
    return lines


def _alarms(tables: Tables, now: float) -> list[str]:
    alarms = sorted(tables.alarms.values(), key=lambda a: (_WORST_FIRST.get(a.severity, 3), a.since))
    return [
        f"! {clean(a.severity).upper()} {clean(a.subject)}: {clean(a.text)}"
        f" ({clean(a.code)}, for {_span(a.since, now)})"
        for a in alarms
    ]


def _plans_for_services(tables: Tables) -> list[str]:
    """Rollouts, and how early each replacement is submitted."""
    services = sorted(tables.services.values(), key=lambda row: row.name)
    lines = [
        line
        for row in services
        if row.rollout
        for line in wrapped("rollout of ", f"{clean(row.name)}: {clean(row.rollout)}", "    ")
    ]
    leads = [f"{clean(row.name)} {show(row.lead_s)}" for row in services if row.lead_s is not None]
    return lines + (wrapped("lead of replacements: ", ", ".join(leads), "    ") if leads else [])


def _exclusions(tables: Tables, now: float) -> list[str]:
    return [
        line
        for row in sorted(tables.nodes.values(), key=lambda row: row.name)
        if row.excluded_until is not None
        for line in wrapped(
            "excluded: ",
            f"{clean(row.name)}, no new jobs for {_left(row.excluded_until, now)}: {clean(row.excluded_because)}",
            "    ",
        )
    ]


def living(tables: Tables) -> list[InstanceView]:
    """Instances that have not ended, by service, the one that ends first at the top."""
    living = [row for row in tables.instances.values() if row.state not in _OVER]
    return sorted(living, key=lambda row: (row.service, row.end or float("inf"), row.id))


def _service(row: ServiceView, now: float) -> list[str]:
    override = "-"
    if row.paused_by_uid is not None:
        waits = row.configured_replicas if row.override_replicas is None else row.override_replicas
        override = f"paused by uid {row.paused_by_uid}; {waits} when it is resumed"
    elif row.override_by_uid is not None:
        override = f"by uid {row.override_by_uid}; the file says {row.configured_replicas}"
    return [
        row.name,
        row.status,
        f"{row.ready}/{row.replicas}",
        str(row.starting),
        str(row.draining),
        str(row.min_available),
        f"{row.requests_per_s:.1f}",
        str(row.in_flight),
        _left(row.next_end, now),
        override,
    ]


def _instance(row: InstanceView, now: float) -> list[str]:
    return [
        short_id(row.id),
        row.state,
        _span(row.since, now),
        _left(row.end, now),
        "?" if row.open_connections is None else str(row.open_connections),
        str(row.job_id or "-"),
        row.node or "-",
        row.reason or row.drain_kind,
    ]


def _proxy(row: ProxyView, now: float) -> list[str]:
    maintenance = "on" if row.maintenance else "off"
    return [
        row.name,
        "up" if row.connected else "down",
        "-" if row.connected_since is None else _span(row.connected_since, now),
        str(row.relays),
        str(row.in_flight),
        maintenance if row.orders_acked else f"{maintenance} (not acknowledged yet)",
        f"{row.said_keys or '?'}, {row.keys_revoked} revoked"
        if row.keys_revoked
        else str(row.said_keys or "-"),
    ]


def _left(until: float | None, now: float) -> str:
    return "-" if until is None else show(round(until - now))


def _span(then: float, now: float) -> str:
    return show(max(0, round(now - then)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> list[str]:
    cells = [list(head), *([clean(cell, WIDEST_CELL) for cell in row] for row in rows)]
    if len(cells) == 1:
        return [empty]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
