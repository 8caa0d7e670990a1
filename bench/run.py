"""What saia costs a request: our path beside others to the same service, on this machine, in the same minutes.

    python -m bench.run [--quick] [--only NAMES] [--json FILE] [--chart FILE]

direct    client -> service
nginx     client -> nginx -> ssh -L -> sshd -> service
ours      client -> saia-proxy -> ssh -> sshd -> gate -> the agent's front -> service
asyncssh  the same with asyncssh within saia-proxy in place of OpenSSH's client
litellm   client -> LiteLLM's proxy -> service
exec      client -> one ssh exec for each request -> dash, curl -> service

In each round the paths take turns at the same load, and a path's ratio to another is formed within the round: the
machine's other work falls on both. Every answer is checked; a wrong one is an error, and is shown. The exit code is 1
where our path could not be measured or gave a wrong answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any, NoReturn

from bench import chart, loads, machine, report
from bench.job import Load
from bench.measure import Measured, measure
from bench.paths import Path, direct, exec, litellm, nginx, ours
from bench.site import Site, Unavailable, raise_file_limit

PATHS: dict[str, Callable[[Site], Path]] = {
    "direct": direct.open_path,
    "nginx": nginx.open_path,
    "ours": ours.open_path,
    "asyncssh": ours.open_asyncssh,
    "litellm": litellm.open_path,
    "exec": exec.open_path,
}
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
RESULTS = FilePath(__file__).parent / "results.json"
CHART = FilePath(__file__).parents[1] / "docs" / "images" / "bench.svg"


def main() -> int:
    asked = _options()
    effort = loads.QUICK if asked.quick else loads.WHOLE
    names = [name for name in PATHS if name in asked.only] or list(PATHS)
    parts = [name for name in asked.only if name not in PATHS]
    sections = [found for every in loads.sections(effort) if (found := loads.chosen(every, parts))]
    if not sections:
        known = ", ".join(load.name for every in loads.sections(effort) for load in every)
        print(f"no load has such a name; there are: {known}")
        return 2
    for number in INTERRUPTS:
        signal.signal(number, interrupt)
    raise_file_limit()
    document = _document(quick=asked.quick)
    try:
        for section in sections:
            _measure_section(section, names, effort, document)
    except Unavailable as exc:
        print(f"nothing can be measured: {exc}")
        return 1
    except KeyboardInterrupt:
        print("interrupted; all that was started has ended")
        return 130
    document["load_average_after"] = machine.load_average()
    asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if asked.chart is not None:
        asked.chart.write_text(chart.svg(document), encoding="utf-8")
    return 0 if _sound(document) else 1


def _sound(document: dict[str, Any]) -> bool:
    """Whether our path was there, if it was asked for, and gave right answers only."""
    wrong = (shown["ours"]["errors"] for shown in document["loads"].values() if "ours" in shown)
    return document["paths"].get("ours", "not asked for") is not None and not any(wrong)


def _measure_section(
    section: Sequence[Load], names: Sequence[str], effort: loads.Effort, document: dict[str, Any]
) -> None:
    """Into the document, and a table on stdout. Raises Unavailable."""
    useful = [name for name in names if any(loads.bears(name, load) for load in section)]
    with Site() as site:
        paths = _open(site, useful, document)
        for load in section:
            shown = _measure(load, paths, loads.rounds(load, effort))
            document["loads"][load.name] = shown
            lines = report.table(load.name, shown) + report.memory(load.name, shown)
            print("\n".join(lines), flush=True)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="bench.run", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a minute or two instead of ten; coarser")
    options.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"paths ({', '.join(PATHS)}), or parts of loads' names, such as streams",
    )
    options.add_argument("--json", type=FilePath, default=RESULTS, metavar="FILE")
    options.add_argument("--chart", type=FilePath, default=None, metavar="FILE", help="draw an SVG there")
    return options.parse_args()


def interrupt(_number: int, _frame: object) -> NoReturn:
    for number in INTERRUPTS:  # a second one would stop the cleaning up
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _open(site: Site, names: Sequence[str], document: dict[str, Any]) -> list[Path]:
    """Those that can be had here; of the others the document says why not."""
    paths: list[Path] = []
    for name in names:
        try:
            path = PATHS[name](site)
        except Unavailable as exc:
            document["paths"][name] = None
            document["reasons"][name] = str(exc).splitlines()[0]
            print(f"without {name}: {document['reasons'][name]}", flush=True)
        else:
            paths.append(path)
            document["paths"][name] = path.version or "there"
    return paths


def _measure(load: Load, paths: list[Path], count: int) -> dict[str, Any]:
    by_name = {path.name: path for path in paths if loads.bears(path.name, load)}
    found: dict[str, list[Measured]] = {name: [] for name in by_name}
    for number in range(count):
        for name in loads.turn(list(by_name), number):
            found[name].append(measure(by_name[name], loads.fit(name, load)))
    return report.entry(load, found)


def _document(*, quick: bool) -> dict[str, Any]:
    return {
        "what": "medians over rounds; ratios formed within each round; times in ms, processor time in µs",
        "quick": quick,
        "machine": machine.facts(),
        "load_average_before": machine.load_average(),
        "versions": machine.versions(),
        "paths": {},
        "reasons": {},
        "loads": {},
    }


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
