"""Commands that look and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saia_engine.cli.asking import ask, engine_options, json_option, load, pick_instance, print_json

if TYPE_CHECKING:
    from saia_engine.client import EngineClient


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


@click.command()
@click.argument("service")
@engine_options
@json_option
def revisions(service: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show what SERVICE was asked to run, and what came of it."""
    answer = ask(config_file, socket, lambda client: client.revisions(service))
    if as_json:
        print_json(answer)
        return
    from saia_engine.explain import revision_lines

    for line in revision_lines(answer):
        click.echo(line)


@click.command()
@click.argument("name", metavar="INSTANCE|SERVICE")
@engine_options
@json_option
def explain(name: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Tell what was done to an instance or a service, and why.

    Also of an instance that ended long ago, and where no engine runs: then from its journal. The end of an
    instance's id is enough, or the beginning of its last part, where only one has it.
    """
    from saia_engine.client import EngineUnreachable

    try:
        story = ask(config_file, socket, lambda client: _from_engine(client, name))
    except EngineUnreachable as exc:
        if socket is not None:
            raise
        click.echo(f"saia-engine: {exc}: this is what its journal tells", err=True)
        story = _from_journal(config_file, name)
    if as_json:
        print_json(story)
        return
    from saia_engine.explain import instance_lines, service_lines

    for line in instance_lines(story) if "instance" in story else service_lines(story):
        click.echo(line)


async def _from_engine(client: EngineClient, name: str) -> dict[str, Any]:
    import msgspec

    tables = await client.state()
    row = tables.services.get(name)
    if row is not None:
        shown = {field: getattr(row, field) for field in row.__struct_fields__}
        return {**await client.service_story(name), "row": msgspec.to_builtins(shown)}
    known = await client.known_instances()
    if any(name == instance.split(".")[2] for instance in known if instance.count(".") == 3):
        return await client.service_story(name)
    return await client.instance_story(pick_instance(name, known, "service or instance"))


def _from_journal(config_file: Path, name: str) -> dict[str, Any]:
    from saia_engine import story
    from saia_engine.instance_dirs import InstanceDirs
    from saia_engine.journal_copy import copied
    from saia_engine.revision_files import RevisionFiles

    config = load(config_file)
    files = RevisionFiles(config.paths.revisions_dir)
    with copied(config.paths.state_db) as store:
        found = story.of_service(store, name, config.services.get(name), files)
        if found is None:
            instance = pick_instance(name, store.known_instances(), "service or instance")
            found = story.of_instance(store, instance, InstanceDirs(config.paths.instances_dir))
    assert found is not None  # known to the journal
    return found
