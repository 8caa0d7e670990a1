"""The demo: engine, local cluster, gate, proxy and traffic on this machine, and what it shows in numbers.

`start` is for the screen, `main` for the command line. Whoever calls them holds the lifeline: when that process
ends, however it ends, so does the demo.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saia_engine.client import ClientError, EngineClient
from saia_engine.demo.drill import PACE, Drill
from saia_engine.demo.judge import Figures, Handover, Record
from saia_engine.demo.parts import LIFELINE_S, DemoFailed, Part, Parts
from saia_engine.demo.place import Place
from saia_engine.demo.remains import Remains, kill
from saia_engine.demo.site import MODELS, NORMAL, Pace, engine_toml, proxy_toml
from saia_engine.edge.text import clean

START_S = 30.0
TRAFFIC_ENDS_S = 5.0
PART_ENDS_S = 5.0
JOBS_END_S = 4.0
SEE_EVERY_S = 0.5
STREAMS = 10

Say = Callable[[str], None]


def start(directory: Path, *, drill: bool = False) -> Demo:
    """A demo with all its files in `directory`: a short path, for there are sockets among them.

    Returns once the parts run; the services are ready soon after, and with a `drill` trouble follows.
    Raises DemoFailed, OSError.
    """
    demo = Demo(directory)
    try:
        demo.start(PACE if drill else NORMAL)
        if drill:
            demo.trouble()
    except BaseException:
        demo.stop()
        raise
    return demo


class Demo:
    """A demo that whoever made it must `stop`, also where its start failed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        logs = self.directory / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = self.directory / "run/sockets/operator/operator.sock"
        self._routes = self.directory / "run/state/gate/routes.json"
        self._report = self.directory / "report.json"
        self._parts = Parts(logs)
        self._remains = Remains(self.directory / "run/state/local", self._parts.lifeline)
        self._traffic: Part | None = None
        self._servers: list[Part] = []
        self._drill: Drill | None = None
        self._stopped = False

    def start(self, pace: Pace) -> None:
        """Raises DemoFailed, OSError."""
        _need_the_proxy()
        from saia_proxy.config import new_key

        key, key_hash = new_key()
        key_file = self._write("key", f"{key}\n")
        config = self._write("engine.toml", engine_toml(pace))
        engine = self._serve("engine", "saia_engine.cli", "run", "--config", config)
        engine.wait_for("answered", self._answers, START_S)
        engine.wait_for("published its routes", lambda: self._routes.exists() or None, START_S)
        config = self._write("proxy.toml", proxy_toml(self._routes, key_hash))
        proxy = self._serve("proxy", "saia_proxy.cli", "run", "--config", config)
        port = proxy.wait_for("opened its port", lambda: _port(proxy.log), START_S)
        self._traffic = self._parts.start(
            "traffic",
            "saia_engine.demo.traffic",
            f"--base-url=http://127.0.0.1:{port}",
            f"--key-file={key_file}",
            f"--models={','.join(MODELS)}",
            f"--streams={STREAMS}",
            f"--stream-seconds={pace.stream_s[0]},{pace.stream_s[1]}",
            f"--report={self._report}",
            "--wait",
        )

    def trouble(self) -> None:
        """As soon as all is well."""
        self._drill = Drill(self.directory, self.socket)
        self._drill.begin()

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return path

    def _serve(self, name: str, module: str, *arguments: str | Path) -> Part:
        part = self._parts.start(name, module, *arguments)
        self._servers.append(part)
        return part

    def _answers(self) -> bool | None:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionError):
                return None
        return True

    def check(self) -> None:
        """Raises DemoFailed if a part has ended."""
        self._parts.check()

    def report(self) -> dict[str, Any] | None:
        """The traffic's newest; None before its first."""
        try:
            return json.loads(self._report.read_bytes())
        except FileNotFoundError:
            return None

    def stop_traffic(self) -> None:
        """Its last report is there after that."""
        if self._traffic is not None:
            self._traffic.terminate()
            self._traffic.wait(TRAFFIC_ENDS_S)

    def stop(self) -> int:
        """Takes everything down; how many processes and jobs were left when all should have gone."""
        if self._stopped:
            return 0
        self._stopped = True
        if self._drill is not None:
            self._drill.end()
        try:
            self.stop_traffic()
            for part in self._servers:
                part.terminate()
            for part in self._servers:
                part.wait(PART_ENDS_S)
            self._remains.cancel_jobs()
            jobs = self._remains.wait_for_jobs(JOBS_END_S)
        finally:
            self._parts.cut()
        left = self._remains.wait_for_processes(LIFELINE_S)
        kill(left)
        return len(left) + jobs


def _need_the_proxy() -> None:
    missing = [name for name in ("saia_proxy", "uvloop") if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoFailed(
            f"the demo runs a proxy, and {', '.join(missing)} is missing: pip install 'saia[proxy]'"
        )


def _port(log: Path) -> int | None:
    """Where the proxy listens, by its own log."""
    for line in log.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "listening":
            return event["port"]
    return None


# ---------------------------------------------------------------- the command line


def main(seconds: float, as_json: bool, pace: Pace = NORMAL) -> int:
    """Runs the demo for `seconds` from when all is up; returns the exit code: 1 if it does not show what it should.

    Then its directory with the logs is kept, and named.
    """
    place, record, began = Place(), Record(), time.monotonic()
    faults: list[str] = []
    say = _silent if as_json else _say
    try:
        with _ended_by(signal.SIGTERM, signal.SIGHUP):
            demo = Demo(place.directory)
            try:
                say("starting an engine, a cluster of 4 nodes with 4 GPUs each, a gate, a proxy and traffic")
                demo.start(pace)
                asyncio.run(_until_up(demo, say, began))
                asyncio.run(_watch(demo, record, seconds, say))
            except BrokenPipeError:
                raise  # nobody reads us any more
            except (DemoFailed, ClientError, OSError) as exc:
                faults.append(_cause(demo, exc))
            finally:
                orphans = demo.stop()
            figures = record.figures(orphans)
            faults += figures.faults()
            _show(figures, as_json)
    finally:
        if faults:
            place.keep()
        else:
            place.remove()
    for line in [*record.faults, *faults, f"the logs are in {place.directory}/logs"] if faults else ():
        _complain(line)
    return 1 if faults else 0


def _cause(demo: Demo, exc: Exception) -> str:
    """What went wrong: where the engine fell silent, most likely that a part has ended."""
    time.sleep(0.2)  # a socket closes a moment before its process has ended
    try:
        demo.check()
    except DemoFailed as failed:
        return str(failed)
    return str(exc)


async def _until_up(demo: Demo, say: Say, began: float) -> None:
    """Raises DemoFailed, ClientError."""
    async with EngineClient(demo.socket) as engine:
        while not await _is_up(demo, engine):
            if time.monotonic() - began > START_S:
                alarms = [alarm.text for alarm in (await engine.state()).alarms.values()]
                raise DemoFailed(f"not all was up within {START_S:.0f} s: {'; '.join(alarms) or 'no alarm'}")
            await asyncio.sleep(0.1)
    say(f"all is up after {time.monotonic() - began:.1f} s")


async def _watch(demo: Demo, record: Record, seconds: float, say: Say) -> None:
    """So many seconds of traffic, and its end. Raises DemoFailed, ClientError, OSError."""
    told: set[str] = set()
    ends_at = time.monotonic() + seconds
    async with EngineClient(demo.socket) as engine:
        while time.monotonic() < ends_at:
            await asyncio.sleep(min(SEE_EVERY_S, max(0.0, ends_at - time.monotonic())))
            demo.check()
            await _see(demo, engine, record)
            for handover in record.handovers:
                if handover.old not in told:
                    told.add(handover.old)
                    say(_sentence(handover))
        demo.stop_traffic()
        await _see(demo, engine, record)


async def _is_up(demo: Demo, engine: EngineClient) -> bool:
    """All replicas are ready, and all streams open."""
    demo.check()
    services = (await engine.state()).services.values()
    ready = bool(services) and all(service.ready >= service.replicas for service in services)
    report = demo.report()
    return ready and report is not None and len(report["open"]) == STREAMS


async def _see(demo: Demo, engine: EngineClient, record: Record) -> None:
    tables = await engine.state()
    record.see(tables.instances, tables.events.values())
    report = demo.report()
    if report is not None:
        record.hear(report)


def _sentence(handover: Handover) -> str:
    old, new = (name.rpartition(".")[2] for name in (handover.old, handover.new))
    return (
        f"{handover.service}: {old} handed over to {new}; {handover.streams} streams open on it ended whole"
    )


def _show(figures: Figures, as_json: bool) -> None:
    if as_json:
        _say(json.dumps(figures.as_dict()))
        return
    _say(
        f"{figures.handovers} hand-overs, {figures.streams_across_handovers} streams across them,"
        f" longest gap between two tokens {figures.max_gap_ms} ms"
    )
    _say(
        f"{figures.requests} requests, {figures.failed} failed, {figures.dropped_streams} streams dropped;"
        f" {figures.submits} jobs submitted, {figures.orphans} left"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{clean(line)}\n")
    sys.stdout.flush()


def _silent(_: str) -> None:
    """For programs, which want the figures alone."""


def _complain(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"saia-engine: {clean(line)}\n")


@contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """These signals end the block by SystemExit, so that it can clear away."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
