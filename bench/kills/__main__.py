"""Kills under load: gate, sshd connection, engine, instance, proxy worker; who notices it, how, and for how long.

    python -m bench.kills [--count 20] [--seed N] [--json FILE]

The exit code is 1 where a promise is broken: where a request fails although neither its instance nor its way was
killed, where one fails in a wrong way, or where clients notice a kill for too long. See `judge.py` for what exactly.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from pathlib import Path

from bench import machine
from bench.kills import judge
from bench.kills.run import order, run
from bench.run import INTERRUPTS, interrupt
from bench.site import Unavailable, raise_file_limit

SHOWN = 20
RESULTS = Path(__file__).parents[1] / "kills.json"


def main() -> int:
    asked = _options()
    for number in INTERRUPTS:
        signal.signal(number, interrupt)
    raise_file_limit()
    before = machine.load_average()
    dice = random.Random(asked.seed)
    try:
        before_any, *found = run(order(asked.count, dice), dice, lambda line: print(line, flush=True))
    except Unavailable as exc:
        print(f"nothing can be measured: {exc}")
        return 1
    except KeyboardInterrupt:
        print("interrupted; all that was started has ended")
        return 130
    summed = judge.summary(found)
    broken = [f"before any kill: {text}" for text in before_any.broken]
    broken += [f"{number}, {one.kind}: {text}" for number, one in enumerate(found, 1) for text in one.broken]
    p99_s = summed["all"]["recovery_p99_s"]
    if p99_s > judge.PROMISED_S:
        broken.append(f"recovery takes {p99_s:.1f} s at its 99th percentile, not {judge.PROMISED_S:.0f} s")
    document = {
        "what": "recovery: from a kill to the last thing that any client noticed of it",
        "seed": asked.seed,
        "machine": machine.facts(),
        "versions": machine.versions(),
        "load_average_before": before,
        "kinds": summed,
        "broken": broken,
    }
    asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*judge.table(summed), *(f"BROKEN: {text}" for text in broken[:SHOWN])]))
    if len(broken) > SHOWN:
        print(f"and {len(broken) - SHOWN} more, in {asked.json}")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="bench.kills", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--count", type=int, default=20, metavar="N", help="kills of each kind")
    options.add_argument("--seed", type=int, default=1, metavar="N", help="of what is killed, and when")
    options.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(main())
