"""Commands that are the engine, or stand beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saia_engine.cli.asking import config_option, json_option, load

if TYPE_CHECKING:
    from datetime import datetime


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Print every fault of FILE, or what it says."""
    from saia_engine.config import check_lines

    for line in check_lines(load(file)):
        click.echo(line)


@click.command()
@config_option
@click.option("--log-file", type=click.Path(path_type=Path), help="Instead of stderr.")
def run(config_file: Path, log_file: Path | None) -> int:
    """Run the engine until SIGTERM.

    Its jobs, and the traffic to them, go on without it.
    """
    config = load(config_file)
    from saia_engine import daemon

    return daemon.run(config, log_file=log_file)


@click.command()
@config_option
def takeover(config_file: Path) -> int:
    """Run the engine here, for a lost host's.

    It waits until that one can't act any more.
    """
    config = load(config_file)
    from saia_engine import daemon

    return daemon.takeover(config)


@click.command()
@config_option
def rebuild(config_file: Path) -> None:
    """Make a new journal, where the old one is lost or damaged.

    From Slurm's answer and the instance directories; the old file is moved aside. No engine may run. A journal
    that is whole stays as it is.
    """
    config = load(config_file)
    from saia_engine import daemon
    from saia_engine.rebuild import lines

    for line in lines(daemon.rebuild(config)):
        click.echo(line)


@click.command("gate-key")
@click.argument("pubkey")
@click.option("--proxy", required=True, help="Its name in the configuration.")
@click.option("--from", "sources", default="", metavar="PATTERNS", help="Addresses that may use the key.")
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y%m%d", "%Y%m%d%H%M"]),
    metavar="WHEN",
    help="When the key ends: YYYY-MM-DD, or YYYYMMDDHHMM (this host's time).",
)
@config_option
def gate_key(pubkey: str, proxy: str, sources: str, expires: datetime | None, config_file: Path) -> None:
    """Print a proxy's line for authorized_keys.

    PUBKEY is a file, the key itself, or - for standard input. With its line the key can do nothing but
    reach the services that the proxy may.
    """
    config = load(config_file)
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


@click.command()
@click.option("--seconds", type=click.FloatRange(5, 86400), default=90, show_default=True)
@json_option
def demo(seconds: float, as_json: bool) -> int:
    """Show hand-overs under load, on this machine.

    A small cluster, services, a proxy and traffic; at the end it counts what was served and what was dropped.
    """
    from saia_engine.demo.run import main as run_demo

    return run_demo(seconds, as_json)
