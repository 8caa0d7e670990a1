"""The command that tries to break the engine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from saia_engine.cli.asking import json_option, print_json


@click.command()
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=100.0, show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1), default=4, show_default=True, help="The hours are split over so many."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first.")
@click.option("--faults", default="", metavar="KINDS", help="Only these, with commas; `none` for none.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes at once.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep finished seeds in FILE, and go on.",
)
@click.option(
    "--trace", is_flag=True, help="Tell what led to the first breach of each promise, or to the end."
)
@click.option("--until", type=click.FloatRange(0), default=0.0, metavar="HOUR", help="End each seed early.")
@json_option
def simulate(
    hours: float,
    seeds: int,
    seed: int,
    faults: str,
    jobs: int,
    resume: Path | None,
    trace: bool,
    until: float,
    as_json: bool,
) -> int:
    """Try to break the engine in a simulated cluster.

    The engine's own planner, reconciler, journal and lease run in virtual time against Slurm, nodes, agents and
    clients that fail at random, while an independent oracle checks all promises. Exits with 1 where one is broken.
    """
    from saia_engine.simulator import run

    kinds = tuple(kind for kind in faults.split(",") if kind)
    unknown = [kind for kind in kinds if kind not in run.KINDS and kinds != ("none",)]
    if unknown:
        raise click.UsageError(f"there is no fault {unknown[0]}; there are: {', '.join(sorted(run.KINDS))}")
    todo = run.tasks(hours, seeds, seed, kinds, trace=trace, until_h=until)
    summary, reports = run.simulate(todo, jobs, resume, lambda line: click.echo(line, err=True))
    if trace:
        for report in sorted(reports, key=lambda report: report.seed):
            click.echo(report.story)
    if as_json:
        print_json(summary)
    else:
        click.echo(run.told(summary))
    return 1 if summary["violations"] else 0
