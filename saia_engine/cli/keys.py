"""Commands on the API keys of proxies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saia_engine.cli.asking import act_options, ask, engine_options, json_option, print_json

if TYPE_CHECKING:
    from saia_engine.client import EngineClient

AS_CONFIGURED = "config"


@click.command()
@click.argument("proxy")
@engine_options
@json_option
def keys(proxy: str, config_file: Path, socket: Path | None, as_json: bool) -> None:
    """Show the API keys of PROXY: what is in force, what is ordered, and their use.

    Their names, limits and figures are the proxy's own word. No key and no hash of one is known here.
    """
    answer = ask(config_file, socket, lambda client: client.keys(proxy))
    if as_json:
        print_json(answer)
        return
    from saia_engine.status import key_lines

    for line in key_lines(answer):
        click.echo(line)


@click.command()
@click.argument("proxy")
@click.argument("name", metavar="KEY")
@click.argument("act", type=click.Choice(["revoke", "restore", "limit"]))
@click.option("--concurrency", metavar="N|config", help="Requests at once; 0: no limit.")
@click.option("--per-minute", metavar="N|config", help="Requests a minute; 0: no limit.")
@click.option("--clear", is_flag=True, help="Both limits are those of the proxy's configuration again.")
@act_options
def key(
    proxy: str,
    name: str,
    act: str,
    concurrency: str | None,
    per_minute: str | None,
    clear: bool,
    reason: str,
    config_file: Path,
    socket: Path | None,
    as_json: bool,
) -> None:
    """Revoke, restore or limit the API key that PROXY calls KEY.

    A revoked key's new requests are refused; those under way end whole. The word `config` in place of N is the
    number in the proxy's configuration. An order holds until it is taken back, also for a key that comes later.
    """
    given = {"concurrency": concurrency, "per_minute": per_minute}
    limits = {limit: _number(limit, text) for limit, text in given.items() if text is not None}
    if (act == "limit") != (bool(limits) or clear) or (limits and clear):
        raise click.UsageError(
            "limit takes --concurrency, --per-minute or both, or --clear; nothing else does"
        )

    async def order(client: EngineClient) -> dict[str, Any]:
        if act == "revoke":
            return await client.revoke_key(proxy, name, reason=reason)
        if act == "restore":
            return await client.restore_key(proxy, name, reason=reason)
        if clear:
            return await client.clear_key_limits(proxy, name, reason=reason)
        return await client.limit_key(proxy, name, limits, reason=reason)

    answer = ask(config_file, socket, order)
    if as_json:
        print_json(answer)
        return
    from saia_engine.view import key_order_words

    click.echo(f"{name}: {key_order_words(answer)} is asked for; `keys {proxy}` shows when it is in force")
    if answer.get("known") is False:
        click.echo(
            f"saia-engine: {proxy} has no key {name} now: the order counts as soon as it has", err=True
        )
    elif answer.get("known") is None:
        click.echo(
            f"saia-engine: {proxy} is away, or does not tell of its keys: the order waits for it", err=True
        )


def _number(limit: str, text: str) -> int | None:
    if text == AS_CONFIGURED:
        return None
    if not (text.isascii() and text.isdigit()):
        option = "--" + limit.replace("_", "-")
        raise click.UsageError(f"{option} must be a number, or the word {AS_CONFIGURED}, not {text}")
    return int(text)
