"""Shows that a planted bug passes the unit and property tests: it is what only the simulator can find.

    python -m tests.simulation.planted.units [--quick] [NAME ...]

Each is planted in a copy of the tree, so that programs which the tests start have it as well. Of the tests those files
are run that import the bug's module, however indirectly, or start a program that does; `--quick` leaves out all files
that start programs.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.simulation.planted.bugs import BUGS
from tests.simulation.planted.soil import Bug

ROOT = Path(__file__).parents[3]
_OURS = re.compile(r"(saia_engine|saia_tui|saia_proxy|bench|tests)(\.\w+)*")
TESTS = ("tests/unit", "tests/property")


def copied(to: Path) -> None:
    """All files that the repository knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of ours that it names, as an import or as a program to start, and their packages."""
    path = source(module)
    if path is None:
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    found.update(name.rpartition(".")[0] for name in [*found])
    return frozenset(name for name in found if source(name) is not None)


@cache
def source(module: str) -> Path | None:
    if not _OURS.fullmatch(module):
        return None
    base = ROOT / ("proxy" if module.startswith("saia_proxy") else "") / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def reached(test: Path) -> set[str]:
    name = str(test.relative_to(ROOT).with_suffix("")).replace("/", ".")
    seen, left = {name}, [name]
    while left:
        for found in imported(left.pop()) - seen:
            seen.add(found)
            left.append(found)
    return seen


def starts_programs(module: str) -> bool:
    path = source(module)
    return module.startswith("tests.") and path is not None and '"-m"' in path.read_text(encoding="utf-8")


def tests_of(bug: Bug, quick: bool) -> list[str]:
    files = [path for folder in TESTS for path in sorted((ROOT / folder).glob("test_*.py"))]
    found = [path for path in files if bug.module in reached(path)]
    if quick:
        found = [path for path in found if not any(map(starts_programs, reached(path)))]
    return [str(path.relative_to(ROOT)) for path in found]


def run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no", *words]
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(tree)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def failed(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stdout.splitlines()
    return [
        line.split(" - ")[0].partition(" ")[2] for line in lines if line.startswith(("FAILED ", "ERROR "))
    ]


def passed(bug: Bug, tree: Path, quick: bool, but: list[str]) -> tuple[bool, str]:
    """Whether the tests find nothing, `but` those aside, and what found it."""
    tests = tests_of(bug, quick)
    if not tests:
        return True, "no test reaches it"
    spec = find_spec(bug.module)
    assert spec is not None and spec.origin is not None
    planted = tree / Path(spec.origin).relative_to(ROOT)
    sound = planted.read_text(encoding="utf-8")
    planted.write_text(bug.planted_in(sound), encoding="utf-8")
    try:
        done = run(tree, "-x", *(f"--deselect={name}" for name in but), *tests)
    finally:
        planted.write_text(sound, encoding="utf-8")
    return done.returncode == 0, " ".join(failed(done))


def main() -> int:
    found, names = [], [word for word in sys.argv[1:] if not word.startswith("-")]
    quick = "--quick" in sys.argv
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        copied(tree)
        bugs = [BUGS[name] for name in names or BUGS]
        but = failed(run(tree, *sorted({test for bug in bugs for test in tests_of(bug, quick)})))
        for name in but:
            print(f"fails without any bug, and does not count: {name}")
        for bug in bugs:
            good, told = passed(bug, tree, quick, but)
            print(f"{bug.name:28} {'passes' if good else 'IS FOUND'}  {told}", flush=True)
            if not good:
                found.append(bug.name)
    print(f"{len(found)} are found by the tests")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
