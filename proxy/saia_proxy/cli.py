"""saia-proxy: run, check, ping, new-key. Exit codes: docs/architecture.md."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
import sys
from pathlib import Path
from typing import NoReturn

import click

from saia_engine.edge import logs, words
from saia_engine.edge.text import plain
from saia_proxy import config as configuration
from saia_proxy import workers
from saia_proxy.config import ConfigFaults, ProxyConfig

FAILED, USAGE, TAKEN, UNREACHABLE = 1, 2, 4, 7

_config_option = click.option(
    "--config", "file", required=True, type=click.Path(path_type=Path), help="The proxy's TOML file."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="saia", prog_name="saia-proxy")
def main() -> None:
    """OpenAI-compatible HTTP for the services that saia keeps alive on a cluster."""


@main.command()
@_config_option
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.option("--log-file", type=click.Path(path_type=Path), help="Instead of stderr.")
def run(file: Path, log_level: str, log_file: Path | None) -> None:
    """Serve until SIGTERM; an upstream that is down is tried again and again."""
    config = _load(file)
    try:
        logs.set_up(log_level, log_file)
        if config.server.workers > 1:
            workers.share_metrics(config.server.state_dir / "metrics")
        from saia_proxy import server

        server.run(config)
    except ssl.SSLError as exc:
        _fail(USAGE, f"the TLS certificate or key is of no use: {plain(exc)}")
    except OSError as exc:
        where = f"{config.server.host}:{config.server.port}"
        if exc.errno == errno.EADDRINUSE:
            _fail(TAKEN, f"{where} is taken: another program listens there")
        _fail(FAILED, f"cannot start on {where}: {plain(exc)}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Print every fault of a configuration file, or what it says."""
    for line in configuration.check_lines(_load(file)):
        click.echo(line)


@main.command()
@_config_option
def ping(file: Path) -> None:
    """Connect each upstream once and say what is there, or why not (exit code 7)."""
    config = _load(file)
    with contextlib.suppress(OSError):
        logs.set_up("error")
    from saia_proxy.ping import ping_all

    faults = 0
    for name, line, good in asyncio.run(ping_all(config)):
        click.echo(f"{name}: {line}", err=not good)
        faults += not good
    if faults:
        sys.exit(UNREACHABLE)


@main.command("new-key")
@click.argument("name", default="client")
def new_key(name: str) -> None:
    """Make an API key: give the key to the client, put the other lines into the file."""
    try:
        words.name(name)
    except ValueError as exc:
        _fail(USAGE, f"the name {plain(exc)}")
    key, key_hash = configuration.new_key()
    click.echo(f'key (shown only now): {key}\n\n[keys.{name}]\nhash = "{key_hash}"\nmodels = ["*"]')


def _load(file: Path) -> ProxyConfig:
    try:
        return configuration.load(file)
    except ConfigFaults as exc:
        _fail(USAGE, str(exc))


def _fail(code: int, text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
