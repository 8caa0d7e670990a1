"""What the commands share: their options, the question to a running engine, and how an instance is named."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from saia_engine.client import EngineClient
    from saia_engine.config import Config

DEFAULT_CONFIG = "/etc/saia/engine.toml"
SHORTEST_ID = 4

Command = TypeVar("Command", bound=Callable[..., Any])
Answer = TypeVar("Answer")


def config_option(command: Command) -> Command:
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


def engine_options(command: Command) -> Command:
    """Where the running engine is: at --socket, or where its configuration says."""
    socket = click.option(
        "--socket", type=click.Path(path_type=Path), help="Its operator.sock, instead of --config."
    )
    return config_option(socket(command))


def yes_option(command: Command) -> Command:
    return click.option("--yes", is_flag=True, help="Also where the engine would ask first.")(command)


json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


LONGEST_REASON = 200


def act_options(command: Command) -> Command:
    """Of every act: why, at which engine, and for whom the answer is."""
    reason = click.option(
        "--reason",
        default="",
        help="For the audit, and for those who look at it later.",
        callback=_short_enough,
    )
    return reason(engine_options(json_option(command)))


def _short_enough(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if len(value) > LONGEST_REASON:
        raise click.BadParameter(f"at most {LONGEST_REASON} characters")
    return value


def tell(answer: Any, sentence: str, as_json: bool) -> None:
    """What came of an act: for people, or the engine's whole answer."""
    if as_json:
        print_json(answer)
    else:
        click.echo(sentence)


def load(file: Path) -> Config:
    from saia_engine.config import load

    return load(file)


def ask(
    config_file: Path, socket: Path | None, question: Callable[[EngineClient], Awaitable[Answer]]
) -> Answer:
    """The answer of the running engine to one question."""
    import asyncio

    from saia_engine.client import EngineClient

    path = socket or load(config_file).paths.operator_socket

    async def ask() -> Answer:
        async with EngineClient(path) as client:
            return await question(client)

    return asyncio.run(ask())


def confirmed(act: Callable[[bool], Answer], yes: bool) -> Answer:
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


def pick_instance(asked: str, ids: Iterable[str], kind: str = "living instance") -> str:
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
    raise click.UsageError(f"no {kind} is called {asked}" + (f"; {hint}" if hint else ""))


def print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())
