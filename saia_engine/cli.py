"""`saia-engine`: run it, watch it, order it. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from datetime import datetime

    from saia_engine.client import EngineClient
    from saia_engine.config import Config

DEFAULT_CONFIG = "/etc/saia/engine.toml"
SHORTEST_ID = 4

FAILED, USAGE, INTERRUPTED = 1, 2, 130
EXIT_CODES = {
    "saia_engine.edge.faults.ConfigFaults": USAGE,
    "saia_engine.slurm.port.SlurmError": 3,
    "saia_engine.lease.LeaseRefused": 4,
    "saia_engine.api.sockets.SocketTaken": 4,
    "saia_engine.client.EngineUnreachable": 5,
    "saia_engine.client.NotAllowed": 6,
    "saia_engine.client.NeedsConfirmation": 6,
    "saia_engine.client.ClientError": FAILED,
    "saia_engine.api.sockets.SocketFault": FAILED,
    "saia_engine.lease.LeaseLost": FAILED,
    "saia_engine.lease.LeaseUnreadable": FAILED,
    "saia_engine.site.SiteFault": FAILED,
    "saia_engine.store.JournalError": FAILED,
    "builtins.OSError": FAILED,
}
"""What each error that tells its own story exits with; by name, so that no module is loaded for this table."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="saia", prog_name="saia-engine")
def cli() -> None:
    """Keep services alive as Slurm jobs.

    The configuration is found by --config, else $SAIA_CONFIG, else /etc/saia/engine.toml.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code; never raises, never prints a traceback unasked."""
    try:
        code = cli.main(args=arguments, prog_name="saia-engine", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return exc.exit_code
    except click.ClickException as exc:
        _complain(exc.format_message(), hint=_usage_hint(exc))
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return INTERRUPTED
    except Exception as exc:
        return _explain(exc)


def _explain(exc: Exception) -> int:
    """Say what went wrong; the exit code that its kind has in EXIT_CODES."""
    if os.environ.get("SAIA_DEBUG") == "1":
        import traceback

        traceback.print_exception(exc)
    for kind in type(exc).__mro__:
        code = EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            _complain(_sentence(exc))
            return code
    story = " ".join(f"{type(exc).__name__}: {exc}".split())
    _complain(f"unexpected error: {story}", hint="run with SAIA_DEBUG=1 for the traceback")
    return FAILED


def _sentence(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.filename is not None and exc.strerror:
        return f"{exc.filename}: {exc.strerror}"
    return str(exc)


def _complain(message: str, hint: str = "") -> None:
    from saia_engine.edge.text import clean

    lines = [*message.splitlines(), *hint.splitlines()]
    with suppress(OSError):
        for line in lines:
            click.echo(f"saia-engine: {clean(line)}", err=True)


def _usage_hint(exc: click.ClickException) -> str:
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    return f"try: {context.command_path} --help" if context else ""


# ---------------------------------------------------------------- options

_Command = TypeVar("_Command", bound=Callable[..., Any])
_T = TypeVar("_T")


def _config_option(command: _Command) -> _Command:
    return click.option(
        "--config",
        "config_file",
        # Operators may not be allowed to read it: with --socket they need not.
        type=click.Path(path_type=Path, readable=False),
        envvar="SAIA_CONFIG",
        default=DEFAULT_CONFIG,
        show_default=True,
        show_envvar=True,
        help="The engine's TOML file.",
    )(command)


def _engine_options(command: _Command) -> _Command:
    """Where the running engine is: at --socket, or where its configuration says."""
    socket = click.option(
        "--socket", type=click.Path(path_type=Path), help="Its operator.sock, instead of --config."
    )
    return _config_option(socket(command))


def _yes_option(command: _Command) -> _Command:
    return click.option("--yes", is_flag=True, help="Also where fewer than min_available stay ready.")(
        command
    )


_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def _load(file: Path) -> Config:
    from saia_engine.config import load

    return load(file)


def _ask(config_file: Path, socket: Path | None, question: Callable[[EngineClient], Awaitable[_T]]) -> _T:
    """The answer of the running engine to one question."""
    import asyncio

    from saia_engine.client import EngineClient

    path = socket or _load(config_file).paths.operator_socket

    async def ask() -> _T:
        async with EngineClient(path) as client:
            return await question(client)

    return asyncio.run(ask())


def _confirmed(act: Callable[[bool], _T], yes: bool) -> _T:
    """Do an act; where the engine wants a confirmation, ask whoever sits at the terminal."""
    from saia_engine.client import NeedsConfirmation
    from saia_engine.edge.text import clean

    try:
        return act(yes)
    except NeedsConfirmation as exc:
        if not sys.stdin.isatty():
            raise NeedsConfirmation(exc.code, f"{exc.message}; to do it all the same, add --yes") from None
        click.confirm(f"{clean(exc.message)}. Do it all the same?", abort=True)
        return act(True)


# ---------------------------------------------------------------- commands


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Print every fault of FILE, or what it says."""
    from saia_engine.config import check_lines

    for line in check_lines(_load(file)):
        click.echo(line)


@cli.command()
@_config_option
@click.option("--log-file", type=click.Path(path_type=Path), help="Instead of stderr.")
def run(config_file: Path, log_file: Path | None) -> int:
    """Run the engine until SIGTERM.

    Its jobs, and the traffic to them, go on without it.
    """
    config = _load(config_file)
    from saia_engine import daemon

    return daemon.run(config, log_file=log_file)


@cli.command()
@_config_option
def takeover(config_file: Path) -> int:
    """Run the engine here, for a lost host's.

    It waits until that one can't act any more.
    """
    config = _load(config_file)
    from saia_engine import daemon

    return daemon.takeover(config)


@cli.command()
@_engine_options
@_json_option
def status(config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show alarms, services, instances and proxies."""
    from saia_engine import status as text

    tables = _ask(config_file, socket, lambda client: client.state())
    if as_json:
        click.echo(text.state_json(tables))
        return
    for line in text.status_lines(tables):
        click.echo(line)


@cli.command()
@_engine_options
@_json_option
def plan(config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show what the engine would do now, and why."""
    answer = _ask(config_file, socket, lambda client: client.plan())
    if as_json:
        _print_json(answer)
        return
    from saia_engine.status import plan_lines

    for line in plan_lines(answer):
        click.echo(line)


@cli.command()
@click.argument("service")
@click.argument("replicas", metavar="N|config")
@_yes_option
@_engine_options
def scale(service: str, replicas: str, yes: bool, config_file: Path, socket: Path | None) -> None:
    """Run N replicas of SERVICE from now on.

    The word `config` in place of N goes back to the number in the file.
    """
    if replicas == "config":
        _ask(config_file, socket, lambda client: client.clear_override(service))
        click.echo(f"{service}: as many replicas as the configuration says")
        return
    if not (replicas.isascii() and replicas.isdigit()):
        raise click.UsageError(f"N must be a number of replicas, or the word config, not {replicas}")
    number = int(replicas)
    _confirmed(
        lambda confirm: _ask(
            config_file, socket, lambda client: client.scale(service, number, confirm=confirm)
        ),
        yes,
    )
    click.echo(f"{service}: {number} replicas desired")


@cli.command()
@click.argument("instance")
@_yes_option
@_engine_options
def drain(instance: str, yes: bool, config_file: Path, socket: Path | None) -> None:
    """Take INSTANCE out gently; another takes its place.

    The end of its id is enough, or the beginning of its last part, where only one has it.
    """
    from saia_engine.status import living

    async def act(client: EngineClient, confirm: bool) -> str:
        name = pick_instance(instance, [row.id for row in living(await client.state())])
        await client.drain(name, confirm=confirm)
        return name

    name = _confirmed(
        lambda confirm: _ask(config_file, socket, lambda client: act(client, confirm)),
        yes,
    )
    click.echo(f"{name}: drains")


def pick_instance(asked: str, ids: Iterable[str]) -> str:
    """The one id that is `asked`, ends in it, or whose last part begins with it. Raises click.UsageError.

    A slip of one key must not name an instance, so fewer than four characters never do.
    """
    known = sorted(ids)
    if len(asked) < SHORTEST_ID:
        raise click.UsageError(
            f"{asked!r} is too short for an instance: give {SHORTEST_ID} characters or more"
        )
    for fits in (
        lambda name: name == asked,
        lambda name: name.endswith(asked),
        lambda name: name.rpartition(".")[2].startswith(asked),
    ):
        found = [name for name in known if fits(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise click.UsageError(f"{asked} could be any of: {', '.join(found)}")
    from saia_engine.edge.faults import did_you_mean

    hint = did_you_mean(asked, known)
    raise click.UsageError(f"no living instance is called {asked}" + (f"; {hint}" if hint else ""))


@cli.command()
@click.argument("proxy")
@click.argument("state", type=click.Choice(["on", "off"]))
@_engine_options
def maintenance(proxy: str, state: str, config_file: Path, socket: Path | None) -> None:
    """Have PROXY turn new requests away, or not."""
    _ask(config_file, socket, lambda client: client.maintenance(proxy, state == "on"))
    click.echo(f"{proxy}: maintenance {state} is asked for; `status` shows when it is acknowledged")


@cli.command("gate-key")
@click.argument("pubkey")
@click.option("--proxy", required=True, help="Its name in the configuration.")
@click.option("--from", "sources", default="", metavar="PATTERNS", help="Addresses that may use the key.")
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y%m%d", "%Y%m%d%H%M"]),
    metavar="WHEN",
    help="When the key ends: YYYY-MM-DD, or YYYYMMDDHHMM (this host's time).",
)
@_config_option
def gate_key(pubkey: str, proxy: str, sources: str, expires: datetime | None, config_file: Path) -> None:
    """Print a proxy's line for authorized_keys.

    PUBKEY is a file, the key itself, or - for standard input. With its line the key can do nothing but
    reach the services that the proxy may.
    """
    config = _load(config_file)
    if proxy not in config.proxies:
        from saia_engine.edge.faults import did_you_mean

        hint = did_you_mean(proxy, config.proxies)
        raise click.UsageError(f"{config_file} has no proxy {proxy}" + (f"; {hint}" if hint else ""))
    from saia_engine.gate_key import authorized_keys_line

    try:
        line = authorized_keys_line(
            _read_pubkey(pubkey),
            proxy=proxy,
            routes_path=str(config.paths.routes),
            sources=[source for source in sources.split(",") if source],
            expiry=expires.astimezone() if expires else None,
        )
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    click.echo(line)


def _read_pubkey(pubkey: str) -> str:
    """The text of a public key: from stdin, the argument itself, or the file it names."""
    most = 64 * 1024
    if pubkey == "-":
        return sys.stdin.read(most)
    if " " in pubkey.strip():
        return pubkey
    with Path(pubkey).open(encoding="utf-8", errors="replace") as file:
        return file.read(most)


@cli.command()
@click.option("--seconds", type=click.FloatRange(5, 86400), default=90, show_default=True)
@_json_option
def demo(seconds: float, as_json: bool) -> int:
    """Show hand-overs under load, on this machine.

    A small cluster, services, a proxy and traffic; at the end it counts what was served and what was dropped.
    """
    from saia_engine.demo.run import main as run_demo

    return run_demo(seconds, as_json)


@cli.command()
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=100.0, show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1), default=4, show_default=True, help="The hours are split over so many."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first.")
@click.option("--faults", default="", metavar="KINDS", help="Only these, with commas; `none` for none.")
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes at once.  [default: cores]"
)
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep finished seeds in FILE, and go on.",
)
@click.option("--trace", is_flag=True, help="Tell what happened before the first violation, or the end.")
@click.option("--until", type=click.FloatRange(0), default=0.0, metavar="HOUR", help="End each seed early.")
@_json_option
def simulate(
    hours: float,
    seeds: int,
    seed: int,
    faults: str,
    jobs: int,
    resume: Path | None,
    trace: bool,
    until: float,
    as_json: bool,
) -> int:
    """Try to break the engine in a simulated cluster.

    The engine's own planner, reconciler, journal and lease run in virtual time against Slurm, nodes, agents and
    clients that fail at random, while an independent oracle checks all promises. Exits with 1 where one is broken.
    """
    from saia_engine.simulator import run

    kinds = tuple(kind for kind in faults.split(",") if kind)
    unknown = [kind for kind in kinds if kind not in run.KINDS and kinds != ("none",)]
    if unknown:
        raise click.UsageError(f"there is no fault {unknown[0]}; there are: {', '.join(sorted(run.KINDS))}")
    todo = run.tasks(hours, seeds, seed, kinds, trace=trace, until_h=until)
    summary, reports = run.simulate(todo, jobs, resume, (lambda line: click.echo(line, err=True)))
    if trace:
        for report in sorted(reports, key=lambda report: report.seed):
            click.echo(report.story)
    if as_json:
        _print_json(summary)
    else:
        click.echo(run.told(summary))
    return FAILED if summary["violations"] else 0


def _print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())


if __name__ == "__main__":
    sys.exit(main())
