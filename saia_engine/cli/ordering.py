"""Commands that order a running engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from saia_engine.cli.asking import ask, confirmed, engine_options, pick_instance, yes_option

if TYPE_CHECKING:
    from saia_engine.client import EngineClient


@click.command()
@click.argument("service")
@click.argument("replicas", metavar="N|config")
@yes_option
@engine_options
def scale(service: str, replicas: str, yes: bool, config_file: Path, socket: Path | None) -> None:
    """Run N replicas of SERVICE from now on.

    The word `config` in place of N goes back to the number in the file.
    """
    if replicas == "config":
        ask(config_file, socket, lambda client: client.clear_override(service))
        click.echo(f"{service}: as many replicas as the configuration says")
        return
    if not (replicas.isascii() and replicas.isdigit()):
        raise click.UsageError(f"N must be a number of replicas, or the word config, not {replicas}")
    number = int(replicas)
    confirmed(
        lambda confirm: ask(
            config_file, socket, lambda client: client.scale(service, number, confirm=confirm)
        ),
        yes,
    )
    click.echo(f"{service}: {number} replicas desired")


@click.command()
@click.argument("instance")
@yes_option
@engine_options
def drain(instance: str, yes: bool, config_file: Path, socket: Path | None) -> None:
    """Take INSTANCE out gently; another takes its place.

    The end of its id is enough, or the beginning of its last part, where only one has it.
    """
    from saia_engine.status import living

    async def act(client: EngineClient, confirm: bool) -> str:
        name = pick_instance(instance, [row.id for row in living(await client.state())])
        await client.drain(name, confirm=confirm)
        return name

    name = confirmed(
        lambda confirm: ask(config_file, socket, lambda client: act(client, confirm)),
        yes,
    )
    click.echo(f"{name}: drains")


@click.command()
@click.argument("proxy")
@click.argument("state", type=click.Choice(["on", "off"]))
@engine_options
def maintenance(proxy: str, state: str, config_file: Path, socket: Path | None) -> None:
    """Have PROXY turn new requests away, or not."""
    ask(config_file, socket, lambda client: client.maintenance(proxy, state == "on"))
    click.echo(f"{proxy}: maintenance {state} is asked for; `status` shows when it is acknowledged")
