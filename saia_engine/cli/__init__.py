"""`saia-engine`: run it, watch it, order it. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from saia_engine.cli import changing, keys, logs, ordering, running, simulating, watching

FAILED, USAGE, INTERRUPTED = 1, 2, 130
EXIT_CODES = {
    "saia_engine.edge.faults.ConfigFaults": USAGE,
    "saia_engine.slurm.port.SlurmError": 3,
    "saia_engine.lease.LeaseRefused": 4,
    "saia_engine.api.sockets.SocketTaken": 4,
    "saia_engine.client.EngineUnreachable": 5,
    "saia_engine.client.NotAllowed": 6,
    "saia_engine.client.NeedsConfirmation": 6,
    "saia_engine.client.ClientError": FAILED,
    "saia_engine.api.sockets.SocketFault": FAILED,
    "saia_engine.lease.LeaseLost": FAILED,
    "saia_engine.lease.LeaseUnreadable": FAILED,
    "saia_engine.site.SiteFault": FAILED,
    "saia_engine.store.JournalError": FAILED,
    "builtins.OSError": FAILED,
}
"""What each error that tells its own story exits with; by name, so that no module is loaded for this table."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="saia", prog_name="saia-engine")
def cli() -> None:
    """Keep services alive as Slurm jobs.

    The configuration is found by --config, else $SAIA_CONFIG, else /etc/saia/engine.toml.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code; never raises, never prints a traceback unasked."""
    try:
        code = cli.main(args=arguments, prog_name="saia-engine", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return exc.exit_code
    except click.ClickException as exc:
        _complain(exc.format_message(), hint=_usage_hint(exc))
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return INTERRUPTED
    except Exception as exc:
        return _explain(exc)


def _explain(exc: Exception) -> int:
    """Say what went wrong; the exit code that its kind has in EXIT_CODES."""
    if os.environ.get("SAIA_DEBUG") == "1":
        import traceback

        traceback.print_exception(exc)
    for kind in type(exc).__mro__:
        code = EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            _complain(_sentence(exc))
            return code
    story = " ".join(f"{type(exc).__name__}: {exc}".split())
    _complain(f"unexpected error: {story}", hint="run with SAIA_DEBUG=1 for the traceback")
    return FAILED


def _sentence(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.filename is not None and exc.strerror:
        return f"{exc.filename}: {exc.strerror}"
    return str(exc)


def _complain(message: str, hint: str = "") -> None:
    from saia_engine.edge.text import clean

    lines = [*message.splitlines(), *hint.splitlines()]
    with suppress(OSError):
        for line in lines:
            click.echo(f"saia-engine: {clean(line)}", err=True)


def _usage_hint(exc: click.ClickException) -> str:
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    return f"try: {context.command_path} --help" if context else ""


for command in (
    running.check,
    running.run,
    running.takeover,
    running.rebuild,
    watching.status,
    watching.plan,
    watching.explain,
    watching.revisions,
    logs.logs,
    ordering.scale,
    ordering.pause,
    ordering.resume,
    ordering.drain,
    ordering.cancel,
    ordering.replace,
    ordering.rollback,
    ordering.unpin,
    ordering.exclude,
    ordering.include,
    ordering.unfreeze,
    ordering.maintenance,
    changing.diff,
    changing.apply_,
    keys.keys,
    keys.key,
    running.gate_key,
    running.demo,
    simulating.simulate,
):
    cli.add_command(command)
