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
@click.argument("instance")
@engine_options
def replace(instance: str, config_file: Path, socket: Path | None) -> None:
    """Hand INSTANCE over to a new one, before its end.

    Like every hand-over: the new one is ready before the old one drains. INSTANCE is named as for `drain`.
    """
    from saia_engine.status import living

    async def act(client: EngineClient) -> str:
        name = pick_instance(instance, [row.id for row in living(await client.state())])
        await client.replace(name)
        return name

    name = ask(config_file, socket, act)
    click.echo(f"{name}: a new instance is to take over")


@click.command()
@click.argument("service")
@click.argument("revision", default="")
@yes_option
@engine_options
def rollback(service: str, revision: str, yes: bool, config_file: Path, socket: Path | None) -> None:
    """Have SERVICE run an older revision, whatever the file says.

    Without REVISION it is the last good one; the beginning of its name is enough, `revisions` shows them.
    It holds until `unpin`, or until the file asks for something new.
    """
    answer = confirmed(
        lambda confirm: ask(
            config_file, socket, lambda client: client.rollback(service, revision, confirm=confirm)
        ),
        yes,
    )
    click.echo(f"{service}: rolls back to {answer['revision']} instead of {answer['instead_of']}")


@click.command()
@click.argument("service")
@engine_options
def unpin(service: str, config_file: Path, socket: Path | None) -> None:
    """End a rollback: SERVICE runs what the file says."""
    answer = ask(config_file, socket, lambda client: client.unpin(service))
    click.echo(f"{service}: back to {answer['revision']} of the configuration")


@click.command()
@click.argument("node")
@click.option("--for", "span", default="2h", show_default=True, help="So long: 30m, 2h, 7d.")
@click.option("--because", default="", help="For those who look at it later.")
@yes_option
@engine_options
def exclude(node: str, span: str, because: str, yes: bool, config_file: Path, socket: Path | None) -> None:
    """Have no new job of ours start on NODE for a while.

    Instances there are handed over to new ones elsewhere.
    """
    from saia_engine.edge.durations import parse, show

    try:
        for_s = parse(span)
    except ValueError as exc:
        raise click.UsageError(f"--for {span}: {exc}") from None
    confirmed(
        lambda confirm: ask(
            config_file, socket, lambda client: client.exclude(node, for_s, because, confirm=confirm)
        ),
        yes,
    )
    click.echo(f"{node}: no new jobs for {show(for_s)}")


@click.command()
@click.argument("node")
@engine_options
def include(node: str, config_file: Path, socket: Path | None) -> None:
    """End the exclusion of NODE, by whomever."""
    ask(config_file, socket, lambda client: client.include(node))
    click.echo(f"{node}: new jobs may go there again")


@click.command()
@yes_option
@engine_options
def unfreeze(yes: bool, config_file: Path, socket: Path | None) -> None:
    """End a freeze: cancels and launches go on.

    When many jobs vanish from Slurm's answer at once, nothing is cancelled or launched until it is clear what
    runs. Look at the nodes first. An instance whose agent still answers is not given up by this.
    """
    confirmed(
        lambda confirm: ask(config_file, socket, lambda client: client.unfreeze(confirm=confirm)),
        yes,
    )
    click.echo("cancels and launches go on")


@click.command()
@click.argument("proxy")
@click.argument("state", type=click.Choice(["on", "off"]))
@engine_options
def maintenance(proxy: str, state: str, config_file: Path, socket: Path | None) -> None:
    """Have PROXY turn new requests away, or not."""
    ask(config_file, socket, lambda client: client.maintenance(proxy, state == "on"))
    click.echo(f"{proxy}: maintenance {state} is asked for; `status` shows when it is acknowledged")
