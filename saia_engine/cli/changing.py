"""Commands on a changed configuration file of a running engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saia_engine.cli.asking import (
    act_options,
    ask,
    confirmed,
    engine_options,
    json_option,
    print_json,
    tell,
    yes_option,
)

if TYPE_CHECKING:
    from saia_engine.client import EngineClient


class FileIsBad(click.ClickException):
    """Prints its faults, and ends with the exit code of a bad configuration."""

    exit_code = 2


@click.command()
@engine_options
@json_option
def diff(config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show what the changed configuration file would change, or its faults.

    It compares with what is in force in the running engine. Values of environments are not shown.
    """
    answer = ask(config_file, socket, lambda client: client.config_diff())
    if as_json:
        print_json(answer)
    if answer["faults"]:
        raise FileIsBad(_faults(answer))
    if not as_json:
        _show(answer)


@click.command("apply")
@yes_option
@act_options
def apply_(yes: bool, reason: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Take in the changed configuration file, as SIGHUP does.

    A bad file is refused with its faults, and changes nothing.
    """
    preview = ask(config_file, socket, lambda client: client.config_diff())
    if preview["faults"]:
        raise FileIsBad(_faults(preview))
    if not as_json:
        _show(preview)
    if not preview["changed"]:
        return

    def act(client: EngineClient, confirm: bool) -> Any:
        expect = {"digest": preview["digest"]}
        return client.apply_config(confirm=confirm, reason=reason, expect=expect)

    answer = confirmed(lambda confirm: ask(config_file, socket, lambda client: act(client, confirm)), yes)
    tell(answer, "it is in force", as_json)


def _faults(answer: Mapping[str, Any]) -> str:
    from saia_engine.edge.faults import Fault

    return "\n".join(str(Fault(**fault)) for fault in answer["faults"])


def _show(answer: Mapping[str, Any]) -> None:
    from saia_engine.status import change_lines

    for line in change_lines(answer):
        click.echo(line)
