"""A recorded hour before the sample's moment, as an engine would have kept it.

02:10 begins. 02:20 `chat-large` has one replica less, by uid 1004. 02:30 to 02:40 a critical alarm. 02:50:30 the engine
is killed, 02:55:30 another one goes on, until 03:10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from saia_engine.api.hub import Hub
from saia_engine.record.recorder import Recorder
from saia_engine.record.writer import Limits
from saia_engine.view import AlarmView, EventView
from tests.tui import sample

BEGIN = sample.NOW // 3600 * 3600 - 50 * 60.0
"""02:10."""
STEP_S = 10.0
CRITICAL = "all-down:embed"


def at(minutes: float) -> float:
    """So many minutes after 02:00."""
    return BEGIN - 600.0 + minutes * 60.0


def record(directory: Path) -> Path:
    """Its directory."""
    hub = Hub()
    moment = [BEGIN]
    for began, ended in ((BEGIN, at(50.5)), (at(55.5), at(70))):
        recorder = Recorder(hub, directory / "record", Limits(STEP_S), lambda: moment[0])
        moment[0] = began
        while moment[0] <= ended:
            for name, rows in tables(moment[0]).items():
                hub.publish(name, {key: sendable(row) for key, row in rows.items()})
            recorder._writer.write(recorder.sample())
            moment[0] += STEP_S
        recorder._writer.close()
    return directory / "record"


def tables(now: float) -> dict[str, sample.Rows]:
    state = sample.state()
    replace = msgspec.structs.replace
    state["engine"]["engine"] = replace(state["engine"]["engine"], now=now, snapshot_at=now - 6)
    services = state["services"]
    services["chat-large"] = replace(services["chat-large"], replicas=3 if now < at(20) else 2)
    passed = int((now - BEGIN) // 60)
    state["jobs"] = {key: row for key, row in state["jobs"].items() if int(key) % 60 >= passed - 10}
    name = next(iter(state["instances"]))
    if now < at(45):
        state["instances"][name] = replace(state["instances"][name], state="starting")
    if at(30) <= now < at(40):
        state["alarms"][CRITICAL] = AlarmView("all-down", "critical", "embed", "none is ready", at(30))
    state["events"] = {
        str(number): EventView(
            number, BEGIN - 6000 + number * 60, "launch", "info", "embed", f"event {number}"
        )
        for number in range(100, 100 + passed + 1)
    }
    if now >= at(20):
        act = EventView(500, at(20), "scale", "info", "chat-large", "to 2 replicas", 1004)
        state["events"]["500"] = act
    return state


def sendable(row: Any) -> msgspec.Struct:
    return msgspec.json.decode(sample.encode(row), type=type(row))
