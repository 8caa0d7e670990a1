"""One fixed state of a busy, slightly broken site: a degraded service, a drained node, hostile names.

`python -m tests.tui.sample OUT.svg` draws it, for the README.
"""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path
from typing import Any

import msgspec

from saia_engine.client import EventPage
from saia_engine.model import Gpu
from saia_engine.view import (
    AlarmView,
    Change,
    EngineView,
    EventView,
    InstanceView,
    JobView,
    KeyView,
    LinkView,
    NodeView,
    ProxyView,
    ServiceView,
    TrafficView,
)
from saia_tui.picture import draw

NOW = 1_795_489_927.0
"""2026-11-24 03:12:07 UTC."""
HOSTILE_NAMES = (
    "\x1b[2J\x1b[31mowned\x1b]52;c;ZXZpbA==\x07",
    "job[/x] [bold red]markup",
    "two\nlines\r\tand \u202eright to left\u202c",
    "zero\u200bwidth \udc80 surrogate \x9b31m C1",
    "漢字の仕事 wide",
)

Rows = dict[str, Any]


def _iid(service: str, nonce: str) -> str:
    return f"k7q2.hpc.{service}.{nonce}"


def _gpus(*percents: float) -> list[Gpu]:
    return [Gpu(number, percent, 800.0 * percent, 81920.0) for number, percent in enumerate(percents)]


def engine() -> EngineView:
    return EngineView(
        installation="k7q2",
        cluster="hpc",
        kind="slurm",
        version="0.1.0",
        pid=2211,
        host="svc01",
        started_at=NOW - 190_000,
        now=NOW,
        poll_interval_s=15.0,
        snapshot_at=NOW - 6,
        slurm_calls=25_300,
        routes_generation=418,
    )


def services() -> Rows:
    rows = [
        ServiceView("chat-large", ["llama-3.3-70b", "gpt-4o"], 3, 2, 2, 1, 0, 0, 2, "degraded", NOW + 95, 14,
                    91_204, 3, 6.4, 1004, NOW - 4000),
        ServiceView("chat-small", ["qwen-3-8b"], 2, 2, 2, 1, 1, 0, 1, "ok", NOW + 3900, 31, 402_118, 0, 22.8),
        ServiceView("embed", ["e5-large"], 2, 2, 2, 0, 0, 0, 1, "ok", NOW + 19_800, 4, 1_204_551, 0, 41.2),
        ServiceView("images", ["flux-1"], 1, 1, 0, 1, 0, 0, 0, "down", None, 0, 812, 44, 0.0),
        ServiceView("whisper", ["whisper-3"], 0, 1, 0, 0, 0, 0, 0, "stopped", None, 0, 77, 0, 0.0, 1001, NOW - 90_000),
    ]  # fmt: skip
    return {row.name: row for row in rows}


def instances() -> Rows:
    def at(service: str, nonce: str, state: str, since: float, **more: Any) -> InstanceView:
        log = f"/scratch/saia/instances/{_iid(service, nonce)}/output.log"
        more = {"revision": "3fd2a90c11be", "log": log, **more}
        return InstanceView(id=_iid(service, nonce), service=service, state=state, since=NOW - since, **more)

    rows = [
        at("chat-large", "a81f", "ready", 86_000, job_id=88101, node="gpu01", started_at=NOW - 86_300,
           ready_since=NOW - 86_000, end=NOW + 95, admit_until=NOW - 55, drain_by=NOW - 300,
           open_connections=5, in_flight=5, gpus=_gpus(88, 91)),
        at("chat-large", "c02d", "ready", 40_000, job_id=88230, node="gpu02", started_at=NOW - 40_400,
           ready_since=NOW - 40_000, end=NOW + 46_400, admit_until=NOW + 46_200, drain_by=NOW + 46_000,
           open_connections=9, in_flight=9, gpus=_gpus(97, 95)),
        at("chat-large", "e5b0", "pending", 840, job_id=88412, reason="Resources", replaces=_iid("chat-large", "a81f")),
        at("chat-small", "11d7", "draining", 45, job_id=88120, node="gpu01", end=NOW + 410, drain_kind="handover",
           open_connections=3, in_flight=3, gpus=_gpus(21)),
        at("chat-small", "29aa", "ready", 70, job_id=88409, node="gpu03", end=NOW + 86_000,
           open_connections=15, in_flight=15, gpus=_gpus(64), replaces=_iid("chat-small", "11d7")),
        at("chat-small", "7c3e", "ready", 70_000, job_id=88188, node="gpu03", end=NOW + 3900,
           open_connections=13, in_flight=13, gpus=_gpus(58)),
        at("chat-small", "90fe", "starting", 130, job_id=88415, node="gpu04", end=NOW + 86_300,
           replaces=_iid("chat-small", "7c3e")),
        at("embed", "4f4f", "ready", 66_000, job_id=88195, node="gpu02", end=NOW + 19_800, generation=1,
           open_connections=2, in_flight=2, gpus=_gpus(12)),
        at("embed", "5a01", "ready", 20_000, job_id=88307, node="gpu04", end=NOW + 66_000,
           open_connections=2, in_flight=2, gpus=_gpus(14)),
        at("images", "d00d", "submitted", 20, job_id=88419),
        at("images", "bad1", "failed", 25, job_id=88418, node="gpu04", end=NOW - 25,
           outcome="exit code 1 after 41 s: CUDA out of memory [/x]\x1b[31m"),
        at("chat-large", "0ld1", "stopped", 39_000, job_id=88005, node="gpu02", outcome="drained, then cancelled"),
    ]  # fmt: skip
    return {row.id: row for row in rows}


def jobs(others: int = 24) -> Rows:
    rows = [
        JobView(row.job_id, f"saia.{row.id}", "saia", "RUNNING" if row.node else "PENDING", "gpu", row.reason,
                row.node, "gpu:a100:2", 2, NOW - 87_000, row.started_at or None, row.end, 86_400.0, row.id)
        for row in instances().values()
        if row.state not in ("failed", "stopped")
    ]  # fmt: skip
    states = ("RUNNING", "RUNNING", "PENDING", "COMPLETING")
    for number in range(others):
        name = HOSTILE_NAMES[number] if number < len(HOSTILE_NAMES) else f"train-{number:05d}"
        state = states[number % 4]
        running = state != "PENDING"
        rows.append(
            JobView(
                id=70_000 + number,
                name=name,
                user=("anna", "ben", "chloe", "dmitri")[number % 4],
                state=state,
                partition=("gpu", "cpu")[number % 2],
                reason="" if running else ("Priority", "Resources", "QOSMaxGRESPerUser")[number % 3],
                nodes=f"cpu[{number % 60:03d}-{number % 60 + 3:03d}]" if running else "",
                gpus=number % 3,
                submit_time=NOW - 3600 - 60 * number,
                start_time=NOW - 1800 - 60 * number if running else None,
                end_time=NOW + 1800 + 600 * number if running else None,
                time_limit_s=86_400.0,
            )
        )
    return {str(row.id): row for row in rows}


def nodes() -> Rows:
    rows = [
        NodeView("gpu01", "mixed", ["gpu"], "", True, 128, 96, 1_031_000, "a100", 4, 4, 3, _gpus(88, 91, 21)),
        NodeView("gpu02", "mixed", ["gpu"], "", True, 128, 64, 1_031_000, "a100", 4, 3, 3, _gpus(97, 95, 12)),
        NodeView("gpu03", "mixed", ["gpu"], "", True, 128, 40, 1_031_000, "a100", 4, 3, 2, _gpus(64, 58)),
        NodeView("gpu04", "mixed", ["gpu", "long"], "", True, 128, 88, 1_031_000, "a100", 4, 3, 2, _gpus(14)),
        NodeView("gpu05", "idle", ["gpu"], "", True, 128, 0, 1_031_000, "a100", 4, 0, 0),
        NodeView("gpu06", "idle+drain", ["gpu"], "ECC errors on GPU 2 [root@svc01]", False, 128, 0, 1_031_000,
                 "a100", 4, 0, 0),
        NodeView("gpu07", "down*", ["gpu"], "Not responding", False, 128, 0, 1_031_000, "h100", 8, 0, 0),
        NodeView("gpu08", "allocated", ["gpu"], "", True, 128, 128, 2_063_000, "h100", 8, 8, 0),
        *(NodeView(f"cpu{number:03d}", "allocated", ["cpu"], "", True, 64, 64, 515_000) for number in range(1, 7)),
    ]  # fmt: skip
    return {row.name: row for row in rows}


def proxies() -> Rows:
    links = [
        LinkView("8a1f03bb", 8122, "192.0.2.17 50312", NOW - 260_000, 0.0214, 418, 0, 30),
        LinkView("c0d4e5f6", 8130, "192.0.2.17 50340", NOW - 1800, 0.0198, 418, 0, 19),
    ]
    campus = [LinkView("41b2aa90", 9001, "198.51.100.4 41822", NOW - 1300, 0.184, 417, 1, 0, False)]
    rows = [
        ProxyView("cloud", ["*"], True, NOW - 260_000, 2, "192.0.2.17 50312", 418, 49, 1_690_112, False, True,
                  "0.1.0", 0, 2, 1, 4, 0.0214, 0, links, NOW - 400_000),
        ProxyView("campus", ["embed", "chat-small"], True, NOW - 1300, 1, "198.51.100.4 41822", 417, 0, 8_120,
                  True, False, "0.1.0", 3, 2, 1, 12, 0.184, 1, campus, NOW - 86_000),
        ProxyView("dmz", ["*"], False, None, 0, "", 0, 0, 0, False, False, silent_since=NOW - 660),
    ]  # fmt: skip
    return {row.name: row for row in rows}


def traffic() -> Rows:
    rows = [
        TrafficView("chat-large", "", ["llama-3.3-70b", "gpt-4o"], 6.4, 0.31, 812.0, 0.41, 2.6, 3.2, 9.8, 1.9,
                    14, 3, {"timeout": 11, "lost": 4, "client": 9}, 91_204),
        TrafficView("chat-large", "llama-3.3-70b", ["llama-3.3-70b"], 5.9, 0.31, 790.0, 0.43, 2.7, 3.1, 9.7, 1.9,
                    13, 0, {"timeout": 11, "lost": 4, "client": 2}, 88_790),
        TrafficView("chat-large", "gpt-4o", ["gpt-4o"], 0.5, 0.0, 22.0, 0.38, 1.1, 3.4, 9.9, 1.4, 1, 0,
                    {"client": 7}, 2414),
        TrafficView("chat-small", "", ["qwen-3-8b"], 22.8, 0.0, 3120.0, 0.062, 0.18, 0.9, 2.2, 0.004, 31, 0,
                    {"gone": 2}, 402_118),
        TrafficView("embed", "", ["e5-large"], 41.2, 0.0, 0.0, None, None, 0.031, 0.074, 0.002, 4, 0, {}, 1_204_551),
        TrafficView("images", "", ["flux-1"], 0.05, 0.05, 0.0, None, None, None, None, None, 0, 2, {"away": 3}, 812),
        TrafficView("whisper", "", ["whisper-3"], 0.0, 0.0, 0.0, requests=77),
        TrafficView("", "", [], 0.8, 0.0, 0.0, failed={"client": 47}, requests=9120),
    ]  # fmt: skip
    troubled = ("chat-large", "images")
    rows = [msgspec.structs.replace(row, troubled=row.service in troubled) for row in rows]
    return {_traffic_key(row): row for row in rows}


def _traffic_key(row: TrafficView) -> str:
    return (f"{row.service}/{row.model}" if row.model else row.service) or "-"


def keys() -> Rows:
    rows = [
        KeyView("cloud", "chat-ui", True, True, False, None, None, None, None, "*", 64, 0, 21, 1_204_113, 0, 38.1, 0.0),
        KeyView("cloud", "anna-notebook", True, True, False, 4, None, 1004, NOW - 3000, "llama-3.3-70b", 4, 60, 4,
                20_116, 812, 1.9, 0.7),
        KeyView("cloud", "leaked-2025", True, True, True, None, None, 1001, NOW - 90_000, "*", 0, 60, 0, 8119, 4402,
                0.0, 2.1),
        KeyView("cloud", "batch", True, True, False, None, None, None, None, "service:embed", 0, 0, 7, 404_101, 0,
                31.0, 0.0),
        KeyView("campus", "wiki", True, False, False, None, 30, 1004, NOW - 20, "qwen-3-8b", 0, 60, 0, 8120, 3, 0.0,
                0.0),
        KeyView("campus", "intern", False, True, True, None, None, 1004, NOW - 500),
    ]  # fmt: skip
    return {f"{row.proxy}/{row.name}": row for row in rows}


def history(table: str, row: str, tables: dict[str, Rows] | None = None) -> dict[str, Any]:
    """The last hour as the engine tells it, made of waves around the present figures."""
    rows = (tables or state())[table]

    def past(now: float | None, phase: int) -> list[float | None]:
        if now is None:
            return [None] * 360
        return [
            now * (0.6 + 0.3 * math.sin(step / 25 + phase) + 0.1 * math.sin(step * 1.7))
            for step in range(360)
        ]

    frame = {"step_s": 10.0, "end": NOW}
    if not row:
        return frame | {"rows": {key: past(each.requests_per_s, len(key)) for key, each in rows.items()}}
    names = ("requests_per_s", "refused_per_s") if table == "keys" else (
        "requests_per_s", "errors_per_s", "tokens_per_s", "first_token_p50_s", "first_token_p95_s", "answer_p95_s",
        "waited_p95_s", "in_flight", "queued",
    )  # fmt: skip
    figures = {name: past(getattr(rows[row], name), number) for number, name in enumerate(names)}
    for why, count in getattr(rows[row], "failed", {}).items():
        figures[f"failed:{why}"] = past(count / 60, len(why))
    return frame | {"row": row, "figures": figures}


def alarms() -> Rows:
    rows = [
        AlarmView("service_down", "critical", "images", "No instance is ready: 3 starts in a row failed, the "
                  "next try is in 40 s", NOW - 610),
        AlarmView("replacement_late", "warning", _iid("chat-large", "a81f"),
                  "Ends in 2 min, its replacement e5b0 still waits in the queue (Resources)", NOW - 240),
        AlarmView("proxy_away", "warning", "dmz", "No relay has reported for 11 min", NOW - 660),
    ]  # fmt: skip
    return {f"{row.code}:{row.subject}": row for row in rows}


def events() -> Rows:
    story = [
        ("instance_failed", "critical", _iid("images", "bad1"), "Ended: exit code 1 after 41 s", None),
        (
            "submitted",
            "info",
            _iid("images", "d00d"),
            "Submitted as job 88419: first start after back-off",
            None,
        ),
        ("drain_started", "info", _iid("chat-small", "11d7"), "Drains: 29aa has been ready for 10 s", None),
        ("ready", "info", _iid("chat-small", "29aa"), "Ready on gpu03 after 61 s", None),
        ("maintenance_on", "info", "campus", "Maintenance wanted: on", 1004),
        ("proxy_away", "warning", "dmz", "No relay reports any more", None),
        ("requeued", "warning", _iid("embed", "4f4f"), "Slurm requeued job 88195: generation 1", None),
        ("scaled", "info", "chat-large", "Desired 2 → 3", 1004),
        ("stopped", "info", _iid("chat-large", "0ld1"), "Drained, then cancelled", None),
        ("config_loaded", "info", "engine", "Configuration read: 5 services, 3 proxies", None),
    ]
    rows = [
        EventView(900 - number, NOW - 20 - 37 * number * (number + 1), code, severity, subject, words, uid)
        for number, (code, severity, subject, words, uid) in enumerate(story)
    ]
    rows += [
        EventView(890 - number, NOW - 5000 - 400 * number, "ready", "info", _iid("embed", f"{number:04x}"),
                  f"Ready on gpu0{number % 4 + 1} after {50 + number} s", None)
        for number in range(30)
    ]  # fmt: skip
    return {str(row.seq): row for row in rows}


OLDEST = 300
"""Number of the first event that the journal still has."""


def older(before: int | None, most: int, *, operators: bool, severity: str) -> EventPage:
    """The journal: an operator's act each tenth, a warning each seventh."""
    found = []
    for seq in range((before or 901) - 1, OLDEST - 1, -1):
        uid, grade = (1004 if seq % 10 == 0 else None), ("warning" if seq % 7 == 0 else "info")
        if (operators and uid is None) or (severity and grade != severity):
            continue
        found.append(
            EventView(seq, NOW - (900 - seq) * 900, "scaled", grade, "embed", f"old event {seq}", uid)
        )
        if len(found) == most:
            return EventPage(found, seq)
    return EventPage(found, 0)


def story(instance: str) -> dict[str, Any]:
    """What the journal tells of an instance, the oldest event first."""
    told = [
        (4, "launch", "info", "missing: 2 of 3 replicas are there or on their way", None,
         {"rule": "missing", "inputs": {"have": 2, "wanted": 3},
          "refused": [["waiting for gpu05", "its drain ends after the lead"]]}),
        (3, "submitted", "info", "Submitted as job 88101", None, {}),
        (2, "ready", "info", "Ready on gpu01 after 61 s", None, {}),
        (1, "drain-asked", "warning", "Drain was asked for [/x]\x1b[31m\nforged", 1004, {}),
    ]  # fmt: skip
    events = [
        {"seq": 900 - number, "at": NOW - 3000 * number, "code": code, "severity": severity, "subject": instance,
         "text": words, "uid": uid, "detail": detail}
        for number, code, severity, words, uid, detail in told
    ]  # fmt: skip
    return {"instance": None, "log": "", "events": events}


def state() -> dict[str, Rows]:
    """All tables."""
    return {
        "engine": {"engine": engine()},
        "services": services(),
        "instances": instances(),
        "jobs": jobs(),
        "nodes": nodes(),
        "proxies": proxies(),
        "traffic": traffic(),
        "keys": keys(),
        "alarms": alarms(),
        "events": events(),
    }


def rates() -> dict[str, list[float]]:
    """A recent past of request rates for the sparklines, two minutes of it."""
    return {
        name: [
            row.requests_per_s * (0.55 + 0.3 * math.sin(step / 4 + len(name)) + 0.15 * math.sin(step * 1.7))
            for step in range(60)
        ]
        for name, row in services().items()
    }


def changes(tables: dict[str, Rows] | None = None) -> list[Change]:
    """The state as the beginning of a stream."""
    return [
        Change(seq, name, {key: msgspec.Raw(encode(row)) for key, row in rows.items()}, reset=True)
        for seq, (name, rows) in enumerate((tables or state()).items())
    ]


def encode(row: Any) -> bytes:
    """As the engine sends it: a lone surrogate can't be JSON and goes out as its escape."""
    fields = msgspec.to_builtins(row)
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = value.encode("utf-8", "backslashreplace").decode()
    return msgspec.json.encode(fields)


if __name__ == "__main__":
    from tests.tui.fake_engine import FakeEngine

    drawn = asyncio.run(draw(FakeEngine(), rates=rates(), monotonic=lambda: 0.0))
    Path(sys.argv[1]).write_text(drawn)
