"""Commands that look and change nothing."""

from __future__ import annotations

from pathlib import Path

import click

from saia_engine.cli.asking import ask, engine_options, json_option, print_json


@click.command()
@engine_options
@json_option
def status(config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show alarms, services, instances and proxies."""
    from saia_engine import status as text

    tables = ask(config_file, socket, lambda client: client.state())
    if as_json:
        click.echo(text.state_json(tables))
        return
    for line in text.status_lines(tables):
        click.echo(line)


@click.command()
@engine_options
@json_option
def plan(config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show what the engine would do now, and why."""
    answer = ask(config_file, socket, lambda client: client.plan())
    if as_json:
        print_json(answer)
        return
    from saia_engine.status import plan_lines

    for line in plan_lines(answer):
        click.echo(line)
