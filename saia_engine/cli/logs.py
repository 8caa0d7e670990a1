"""The command that shows what an instance printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from saia_engine.cli.asking import ask, engine_options, pick_instance

if TYPE_CHECKING:
    from saia_engine.client import EngineClient
    from saia_engine.view import LogPiece

LAST_BYTES = 1 << 20
"""The last lines are looked for in no more than this."""
WAIT_S = 20.0
RETRY_S = 2.0


@click.command()
@click.argument("name", metavar="INSTANCE")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option(
    "-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="Begin so far back."
)
@click.option("--all", "whole", is_flag=True, help="Begin at the beginning.")
@click.option("--events", is_flag=True, help="What happened to it, instead of what it printed.")
@click.option("--raw", is_flag=True, help="Bytes as they are, also those that a terminal obeys.")
@engine_options
def logs(
    name: str,
    follow: bool,
    lines: int,
    whole: bool,
    events: bool,
    raw: bool,
    config_file: Path,
    socket: Path | None,
) -> None:
    """Show what INSTANCE printed, standard output and error together, or with --events what happened to it.

    The engine reads the file, so whoever may ask the engine needs no access to it. The end of an instance's id is
    enough, or the beginning of its last part, where only one has it.
    """
    stream = "events" if events else "output"

    async def show(client: EngineClient) -> None:
        instance = pick_instance(name, await client.known_instances(), "instance")
        printer = _Raw() if raw else _Clean()
        piece = await client.instance_log(instance, stream=stream, offset=0 if whole else -LAST_BYTES)
        piece = piece if whole else _last_lines(piece, lines)
        await _print(client, instance, stream, piece, printer, follow)

    ask(config_file, socket, show)


async def _print(
    client: EngineClient, instance: str, stream: str, piece: LogPiece, printer: _Raw, follow: bool
) -> None:
    import asyncio

    from saia_engine.client import EngineUnreachable

    while True:
        printer.take(piece)
        if piece.end >= piece.size and not follow:
            printer.end()
            return
        offset = 0 if piece.size < piece.offset else piece.end
        try:
            piece = await client.instance_log(
                instance, stream=stream, offset=offset, file=piece.file, wait_s=WAIT_S if follow else 0.0
            )
        except EngineUnreachable as exc:
            if not follow:
                raise
            click.echo(f"saia-engine: {exc}: trying again", err=True)
            await asyncio.sleep(RETRY_S)


def _last_lines(piece: LogPiece, lines: int) -> LogPiece:
    """The piece without what is before its last lines."""
    from msgspec.structs import replace

    whole = piece.data.removesuffix(b"\n")
    at = len(whole)
    for _ in range(lines):
        at = whole.rfind(b"\n", 0, at)
        if at < 0:
            break
    start = len(piece.data) if lines == 0 else at + 1
    return replace(piece, data=piece.data[start:], offset=piece.offset + start)


class _Raw:
    """Prints bytes as they come."""

    def take(self, piece: LogPiece) -> None:
        click.echo(piece.data, nl=False)

    def end(self) -> None:
        """All has come."""


class _Clean(_Raw):
    """Prints whole lines that no terminal obeys."""

    def __init__(self) -> None:
        from saia_engine.edge.lines import LineSplitter

        self._splitter = LineSplitter()
        self._file = ""

    def take(self, piece: LogPiece) -> None:
        from saia_engine.edge.lines import LineSplitter

        if self._file not in ("", piece.file):
            self.end()
            self._splitter = LineSplitter()
            click.echo("saia-engine: the file was rotated: this is the new one", err=True)
        elif piece.size < piece.offset:
            self.end()
            self._splitter = LineSplitter()
            click.echo("saia-engine: the file was cut short: from its beginning", err=True)
        self._file = piece.file
        for line in self._splitter.feed(piece.data):
            click.echo(line.text)

    def end(self) -> None:
        rest = self._splitter.rest
        if rest is not None:
            click.echo(rest.text)
