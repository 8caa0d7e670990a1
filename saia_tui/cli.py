"""`saia-tui`: attach to the engine that runs, or start one and attach to that."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from saia_engine.client import ClientError, EngineClient, NotAllowed, Tables
from saia_engine.config import Config, load
from saia_engine.edge.faults import ConfigFaults
from saia_engine.edge.text import clean
from saia_tui import lost_terminal
from saia_tui.embedded import Embedded, EngineDied, answers
from saia_tui.options import taken, terminal_options
from saia_tui.settings import Settings
from saia_tui.terminal import Terminal, is_dumb

DEFAULT_CONFIG = "/etc/saia/engine.toml"
START_S = 30.0
GARBAGE_OBJECTS = 10_000
"""New ones after which the collector looks at them."""
GARBAGE_ROUNDS = 3
"""Looks at new ones after which it looks at those of the last rounds, too: after ten that took 50 ms."""
FAILED, USAGE, NO_ENGINE, NOT_ALLOWED, CRITICAL, INTERRUPTED = 1, 2, 5, 6, 7, 130


class Stopped(click.ClickException):
    """A message for people, and the exit code that says the same to programs."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.code = exit_code


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="saia", prog_name="saia-tui")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="SAIA_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    help="The engine's TOML file.",
)
@click.option("--socket", type=click.Path(path_type=Path), help="operator.sock of a running engine.")
@click.option("--demo", "as_demo", is_flag=True, help="A whole small site on this machine, to try it out.")
@click.option("--drill", is_flag=True, help="The demo with a night's trouble in it, to practise on.")
@click.option("--read-only", is_flag=True, help="No act can be asked for here.")
@click.option(
    "--once", is_flag=True, help="Print the overview as plain text and end; 7: an alarm is critical."
)
@click.option("--json", "as_json", is_flag=True, help="With --once: the whole state as one JSON document.")
@click.option(
    "--replay",
    metavar="[WHEN]",
    is_flag=False,
    flag_value="",
    help="The screen as of a past moment: 03:12, -8h, 2026-11-27T03:12; by default the last night.",
)
@terminal_options
def cli(
    config_file: Path,
    socket: Path | None,
    as_demo: bool,
    drill: bool,
    once: bool,
    as_json: bool,
    read_only: bool,
    replay: str | None,
    **flags: Any,
) -> None:
    """Watch and steer saia's services.

    Attaches to the engine of the configuration; where none runs, starts one that outlives this screen.
    """
    if as_json and not once:
        raise Stopped("--json goes with --once", USAGE)
    if replay is not None:
        if as_demo:
            raise Stopped("a demo that has just begun has no past: press z in it after a while", USAGE)
        _replay(replay, config_file, socket, once, as_json, read_only, flags)
        return
    if once:
        if as_demo or drill:
            raise Stopped("--once asks an engine that runs: give --config or --socket, not a demo", USAGE)
        _, terminal = _taken(flags)
        _print_once(socket or _load(config_file).paths.operator_socket, as_json, terminal)
        return
    _need_terminal()
    screen = _Screen(*_taken(flags), read_only)
    if as_demo or drill:
        _run_demo(screen, drill)
    elif socket is not None:
        _need_engine(socket)
        screen.show(socket)
    else:
        _run_with(config_file, _load(config_file), screen)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    try:
        arguments = _joined(sys.argv[1:] if arguments is None else arguments)
        cli.main(args=arguments, prog_name="saia-tui", standalone_mode=False)
    except click.ClickException as exc:
        for line in exc.format_message().splitlines():
            click.echo(f"saia-tui: {clean(line)}", err=True)
        return exc.code if isinstance(exc, Stopped) else exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return 0


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--replay -8h` and `--replay=-8h` as `--replay=8h ago`: click would take `-8h` for another option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--replay" and argument[:1] == "-" and argument[1:2].isdigit():
            joined[-1] = f"--replay={argument[1:]} ago"
        elif argument.startswith("--replay=-"):
            joined.append(f"--replay={argument[10:]} ago")
        else:
            joined.append(argument)
    return joined


def _replay(
    words: str,
    config_file: Path,
    socket: Path | None,
    once: bool,
    as_json: bool,
    read_only: bool,
    flags: Mapping[str, Any],
) -> None:
    """From the engine where one answers, else from the record's directory. Never starts an engine."""
    from saia_tui.replay.when import LAST_NIGHT_S, when

    if not once:
        _need_terminal()
    settings, terminal = _taken(flags)
    directory = None
    if socket is None:
        paths = _load(config_file).paths
        socket, directory = paths.operator_socket, paths.record_dir
    elif not _answers(socket):
        raise Stopped(
            f"no engine answers at {socket}; with --config FILE its record is read itself", NO_ENGINE
        )
    now = time.time()
    try:
        moment = when(words, now) if words else now - LAST_NIGHT_S
    except ValueError as exc:
        raise Stopped(f"--replay {words}: {exc}", USAGE) from exc
    if once:
        _print_then(socket, directory, moment, as_json, terminal)
    else:
        _Screen(settings, terminal, read_only).show(socket, record_dir=directory, replay=words)


def _print_then(
    socket: Path, directory: Path | None, moment: float, as_json: bool, terminal: Terminal
) -> None:
    """As `_print_once`, of a past moment."""
    from saia_engine.record.frames import RecordFault
    from saia_tui.replay.source import Record
    from saia_tui.replay.state import state_at

    async def ask() -> tuple[Tables, float]:
        async with EngineClient(socket) as engine:
            return await state_at(Record(engine, directory), moment)

    try:
        tables, at = asyncio.run(ask())
    except (RecordFault, ClientError) as exc:
        raise Stopped(str(exc), FAILED) from exc
    _print(tables, as_json, terminal, at)


def _need_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Stopped("this needs a terminal; for scripts there is --once, and --once --json", USAGE)
    if is_dumb(os.environ):
        raise Stopped(
            f"the terminal (TERM={os.environ.get('TERM', '')}) can't draw a screen: try saia-tui --once",
            USAGE,
        )


def _taken(flags: Mapping[str, Any]) -> tuple[Settings, Terminal]:
    try:
        return taken(flags)
    except ConfigFaults as exc:
        raise Stopped(str(exc), USAGE) from exc


def _print_once(socket: Path, as_json: bool, terminal: Terminal) -> None:
    """Raises Stopped with CRITICAL, and no words, where an alarm is critical."""
    _need_engine(socket)

    async def ask() -> Tables:
        async with EngineClient(socket) as engine:
            return await engine.state()

    try:
        tables = asyncio.run(ask())
    except ClientError as exc:
        raise Stopped(str(exc), NOT_ALLOWED if isinstance(exc, NotAllowed) else FAILED) from exc
    _print(tables, as_json, terminal)


def _print(tables: Tables, as_json: bool, terminal: Terminal, then: float | None = None) -> None:
    """`then`: the moment that they are of; None: they are of now."""
    from saia_tui import once
    from saia_tui.signs import ascii_twin

    if as_json:
        click.echo(once.as_json(tables, then))
    else:
        words = once.as_text(tables, shutil.get_terminal_size().columns, then)
        click.echo(ascii_twin(words) if terminal.ascii else words)
    if once.criticals(tables):
        raise Stopped("", CRITICAL)


def _load(config_file: Path) -> Config:
    try:
        return load(config_file)
    except ConfigFaults as exc:
        raise Stopped(str(exc), USAGE) from exc


def _answers(socket: Path) -> bool:
    try:
        return answers(socket)
    except PermissionError as exc:
        raise Stopped(
            f"you may not open {socket}: it is for root, the engine's user and the operators' group",
            NOT_ALLOWED,
        ) from exc
    except OSError as exc:
        raise Stopped(f"{socket}: {exc}", FAILED) from exc


def _need_engine(socket: Path) -> None:
    if not _answers(socket):
        raise Stopped(f"no engine answers at {socket}; start one with: saia-engine run", NO_ENGINE)


def _run_with(config_file: Path, config: Config, screen: _Screen) -> None:
    socket = config.paths.operator_socket
    if _answers(socket):
        screen.show(socket, record_dir=config.paths.record_dir)
        return
    embedded = _start(config_file, config, socket)
    if screen.show(socket, embedded, config.paths.record_dir) != "stop" or embedded is None:
        _say_it_stays(embedded)
        return
    click.echo(
        "saia-tui: stopping the engine; services go on as Slurm jobs until their time limits", err=True
    )
    if not embedded.stop():
        raise Stopped(f"the engine (pid {embedded.pid}) is still stopping; its log is {embedded.log}", FAILED)


def _start(config_file: Path, config: Config, socket: Path) -> Embedded | None:
    """None where someone else's engine came first."""
    click.echo(f"saia-tui: no engine answers at {socket}: starting one", err=True)
    try:
        embedded = Embedded.start(config_file, config.paths.state_dir)
        embedded.wait_until_it_answers(socket, START_S)
    except EngineDied as exc:
        if _answers(socket):
            return None
        raise Stopped(str(exc), exc.exit_code if exc.exit_code > 0 else FAILED) from exc
    except OSError as exc:
        raise Stopped(f"the engine can't be started: {exc}", FAILED) from exc
    return embedded


def _say_it_stays(embedded: Embedded | None) -> None:
    if embedded is not None and embedded.alive:
        click.echo(
            f"saia-tui: the engine (pid {embedded.pid}) keeps running; its log is {embedded.log}", err=True
        )


def _run_demo(screen: _Screen, drill: bool) -> None:
    from saia_tui.demo import demo

    click.echo("saia-tui: starting the demo", err=True)
    with demo(drill=drill) as socket:
        screen.show(socket)


@dataclass(frozen=True, slots=True)
class _Screen:
    """How the operator wants it."""

    settings: Settings
    terminal: Terminal
    read_only: bool

    def show(
        self,
        socket: Path,
        embedded: Embedded | None = None,
        record_dir: Path | None = None,
        replay: str | None = None,
    ) -> str | None:
        """Run it until the operator leaves; what becomes of the engine. `replay`: begin in the past."""
        from saia_tui.app import SaiaApp
        from saia_tui.feed import Feed
        from saia_tui.kept import Kept, kept_file
        from saia_tui.replay.source import Record

        # All that was loaded stays: the collector need not go through it again and again, and keys wait meanwhile.
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS, GARBAGE_ROUNDS)

        async def run() -> str | None:
            watch = asyncio.create_task(lost_terminal.end_with(sys.stdin.fileno()))
            try:
                async with EngineClient(socket) as engine:
                    app = SaiaApp(
                        Feed(engine),
                        engine,
                        embedded=embedded,
                        terminal=self.terminal,
                        settings=self.settings,
                        kept=Kept(kept_file()),
                        read_only=self.read_only,
                        record=Record(engine, record_dir),
                        replay=replay,
                    )
                    return await app.run_async(mouse=self.terminal.mouse)
            finally:
                watch.cancel()

        return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
