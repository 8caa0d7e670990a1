"""Commands that order a running engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saia_engine.cli.asking import act_options, ask, confirmed, pick_instance, tell, yes_option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from saia_engine.client import EngineClient


@click.command()
@click.argument("service")
@click.argument("replicas", metavar="N|config")
@yes_option
@act_options
def scale(
    service: str,
    replicas: str,
    yes: bool,
    reason: str,
    config_file: Path,
    socket: Path | None,
    as_json: bool,
) -> None:
    """Run N replicas of SERVICE from now on.

    The word `config` in place of N goes back to the number in the file.
    """
    if replicas == "config":
        answer = ask(config_file, socket, lambda client: client.clear_override(service, reason=reason))
        tell(answer, f"{service}: as many replicas as the configuration says", as_json)
        return
    if not (replicas.isascii() and replicas.isdigit()):
        raise click.UsageError(f"N must be a number of replicas, or the word config, not {replicas}")
    number = int(replicas)
    answer = confirmed(
        lambda confirm: ask(
            config_file,
            socket,
            lambda client: client.scale(service, number, confirm=confirm, reason=reason),
        ),
        yes,
    )
    tell(answer, f"{service}: {number} replicas desired", as_json)


@click.command()
@click.argument("service")
@yes_option
@act_options
def pause(
    service: str, yes: bool, reason: str, config_file: Path, socket: Path | None, as_json: bool
) -> None:
    """Run none of SERVICE until `resume`.

    Its instances drain. The number from before, of the file or by `scale`, comes back then.
    """
    answer = confirmed(
        lambda confirm: ask(
            config_file, socket, lambda client: client.pause(service, confirm=confirm, reason=reason)
        ),
        yes,
    )
    tell(answer, f"{service}: paused, was {answer['before']} replicas", as_json)


@click.command()
@click.argument("service")
@act_options
def resume(service: str, reason: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """End the pause of SERVICE: as many replicas as before."""
    answer = ask(config_file, socket, lambda client: client.resume(service, reason=reason))
    tell(answer, f"{service}: {answer['replicas']} replicas desired", as_json)


@click.command()
@click.argument("instance")
@yes_option
@act_options
def drain(
    instance: str, yes: bool, reason: str, config_file: Path, socket: Path | None, as_json: bool
) -> None:
    """Take INSTANCE out gently; another takes its place.

    The end of its id is enough, or the beginning of its last part, where only one has it.
    """

    def act(client: EngineClient, name: str, confirm: bool) -> Awaitable[dict[str, Any]]:
        return client.drain(name, confirm=confirm, reason=reason)

    answer = _on_instance(instance, act, yes, config_file, socket)
    tell(answer, f"{answer['instance']}: drains", as_json)


@click.command()
@click.argument("instance")
@yes_option
@act_options
def cancel(
    instance: str, yes: bool, reason: str, config_file: Path, socket: Path | None, as_json: bool
) -> None:
    """End INSTANCE at once, whatever is open on it; another takes its place.

    Also one that drains, and takes too long. INSTANCE is named as for `drain`.
    """

    def act(client: EngineClient, name: str, confirm: bool) -> Awaitable[dict[str, Any]]:
        return client.cancel(name, confirm=confirm, reason=reason)

    answer = _on_instance(instance, act, yes, config_file, socket)
    tell(answer, f"{answer['instance']}: is cancelled", as_json)


@click.command()
@click.argument("instance")
@act_options
def replace(instance: str, reason: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Hand INSTANCE over to a new one, before its end.

    Like every hand-over: the new one is ready before the old one drains. INSTANCE is named as for `drain`.
    """

    def act(client: EngineClient, name: str, confirm: bool) -> Awaitable[dict[str, Any]]:
        return client.replace(name, reason=reason)

    answer = _on_instance(instance, act, False, config_file, socket)
    tell(answer, f"{answer['instance']}: a new instance is to take over", as_json)


def _on_instance(
    asked: str,
    act: Callable[[EngineClient, str, bool], Awaitable[dict[str, Any]]],
    yes: bool,
    config_file: Path,
    socket: Path | None,
) -> dict[str, Any]:
    """The answer to an act on the living instance that is meant; asks where the engine wants it."""
    from saia_engine.status import living

    async def once(client: EngineClient, confirm: bool) -> dict[str, Any]:
        name = pick_instance(asked, [row.id for row in living(await client.state())])
        return {**await act(client, name, confirm), "instance": name}

    return confirmed(lambda confirm: ask(config_file, socket, lambda client: once(client, confirm)), yes)


@click.command()
@click.argument("service")
@click.argument("revision", default="")
@yes_option
@act_options
def rollback(
    service: str,
    revision: str,
    yes: bool,
    reason: str,
    config_file: Path,
    socket: Path | None,
    as_json: bool,
) -> None:
    """Have SERVICE run an older revision, whatever the file says.

    Without REVISION it is the last good one; the beginning of its name is enough, `revisions` shows them.
    It holds until `unpin`, or until the file asks for something new.
    """
    answer = confirmed(
        lambda confirm: ask(
            config_file,
            socket,
            lambda client: client.rollback(service, revision, confirm=confirm, reason=reason),
        ),
        yes,
    )
    tell(answer, f"{service}: rolls back to {answer['revision']} instead of {answer['instead_of']}", as_json)


@click.command()
@click.argument("service")
@act_options
def unpin(service: str, reason: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """End a rollback: SERVICE runs what the file says."""
    answer = ask(config_file, socket, lambda client: client.unpin(service, reason=reason))
    tell(answer, f"{service}: back to {answer['revision']} of the configuration", as_json)


@click.command()
@click.argument("node")
@click.option("--for", "span", default="2h", show_default=True, help="So long: 30m, 2h, 7d.")
@click.option("--because", default="", help="An older word for --reason.")
@yes_option
@act_options
def exclude(
    node: str,
    span: str,
    because: str,
    yes: bool,
    reason: str,
    config_file: Path,
    socket: Path | None,
    as_json: bool,
) -> None:
    """Have no new job of ours start on NODE for a while.

    Instances there are handed over to new ones elsewhere.
    """
    from saia_engine.edge.durations import parse, show

    try:
        for_s = parse(span)
    except ValueError as exc:
        raise click.UsageError(f"--for {span}: {exc}") from None
    why = reason or because
    answer = confirmed(
        lambda confirm: ask(
            config_file, socket, lambda client: client.exclude(node, for_s, confirm=confirm, reason=why)
        ),
        yes,
    )
    tell(answer, f"{node}: no new jobs for {show(for_s)}", as_json)


@click.command()
@click.argument("node")
@act_options
def include(node: str, reason: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """End the exclusion of NODE, by whomever."""
    answer = ask(config_file, socket, lambda client: client.include(node, reason=reason))
    tell(answer, f"{node}: new jobs may go there again", as_json)


@click.command()
@yes_option
@act_options
def unfreeze(yes: bool, reason: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """End a freeze: cancels and launches go on.

    When many jobs vanish from Slurm's answer at once, nothing is cancelled or launched until it is clear what
    runs. Look at the nodes first. An instance whose agent still answers is not given up by this.
    """
    answer = confirmed(
        lambda confirm: ask(
            config_file, socket, lambda client: client.unfreeze(confirm=confirm, reason=reason)
        ),
        yes,
    )
    tell(answer, "cancels and launches go on", as_json)


@click.command()
@click.argument("proxy")
@click.argument("state", type=click.Choice(["on", "off"]))
@act_options
def maintenance(
    proxy: str, state: str, reason: str, config_file: Path, socket: Path | None, as_json: bool
) -> None:
    """Have PROXY turn new requests away, or not."""
    answer = ask(config_file, socket, lambda client: client.maintenance(proxy, state == "on", reason=reason))
    words = f"{proxy}: maintenance {state} is asked for; `status` shows when it is acknowledged"
    tell(answer, words, as_json)
