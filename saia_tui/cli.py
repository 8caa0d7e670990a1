"""`saia-tui`: attach to the engine that runs, or start one and attach to that."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from saia_engine.client import EngineClient
from saia_engine.config import Config, load
from saia_engine.edge.faults import ConfigFaults
from saia_engine.edge.text import clean
from saia_tui import lost_terminal
from saia_tui.embedded import Embedded, EngineDied, answers

DEFAULT_CONFIG = "/etc/saia/engine.toml"
START_S = 30.0
GARBAGE_OBJECTS = 20_000
"""New ones after which the collector looks."""
FAILED, USAGE, NO_ENGINE, NOT_ALLOWED, INTERRUPTED = 1, 2, 5, 6, 130


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
def cli(config_file: Path, socket: Path | None, as_demo: bool) -> None:
    """Watch and steer saia's services.

    Attaches to the engine of the configuration; where none runs, starts one that outlives this screen.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Stopped("this needs a terminal; for scripts there is: saia-engine status --json", USAGE)
    if as_demo:
        _run_demo()
    elif socket is not None:
        _need_engine(socket)
        _show(socket)
    else:
        _run_with(config_file, _load(config_file))


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    try:
        cli.main(args=arguments, prog_name="saia-tui", standalone_mode=False)
    except click.ClickException as exc:
        for line in exc.format_message().splitlines():
            click.echo(f"saia-tui: {clean(line)}", err=True)
        return exc.code if isinstance(exc, Stopped) else exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return 0


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


def _run_with(config_file: Path, config: Config) -> None:
    socket = config.paths.operator_socket
    if _answers(socket):
        _show(socket)
        return
    embedded = _start(config_file, config, socket)
    if _show(socket, embedded) != "stop" or embedded is None:
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


def _run_demo() -> None:
    from saia_tui.demo import demo

    click.echo("saia-tui: starting the demo", err=True)
    with demo() as socket:
        _show(socket)


def _show(socket: Path, embedded: Embedded | None = None) -> str | None:
    """Run the screen until the operator leaves; what becomes of the engine."""
    from saia_tui.app import SaiaApp
    from saia_tui.feed import Feed
    from saia_tui.kept import Kept, kept_file

    # All that was loaded stays: the collector need not go through it again and again, and keys wait meanwhile.
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)

    async def run() -> str | None:
        watch = asyncio.create_task(lost_terminal.end_with(sys.stdin.fileno()))
        try:
            async with EngineClient(socket) as engine:
                return await SaiaApp(
                    Feed(engine), engine, embedded=embedded, kept=Kept(kept_file())
                ).run_async()
        finally:
            watch.cancel()

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
