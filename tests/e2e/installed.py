"""saia as its users install it: from a wheel, in virtual environments of its own, readable by all accounts.

The site's has the engine and the gate, the proxy's has `saia[proxy]` and nothing else. Both are made once for
each state of the sources and kept under CACHE, for the repository may lie where other accounts cannot look.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path("/var/cache/saia-e2e")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "saia_engine", "saia_tui", "proxy")
OUTDATED_S = 86_400.0


class NotInstallable(Exception):
    """It can't be installed here; the text says why."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The `bin` directories of the two environments."""

    site: Path
    proxy: Path


def install() -> Installed:
    """Both environments, made where they are missing. Raises NotInstallable."""
    base = _python_for_all()
    CACHE.mkdir(mode=0o755, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = CACHE / _fingerprint(base)
        if not (directory / "whole").exists():
            shutil.rmtree(directory, ignore_errors=True)
            _make(directory, base)
            (directory / "whole").touch()
        os.utime(directory)
        _remove_outdated(keep=directory)
    return Installed(directory / "site" / "bin", directory / "proxy" / "bin")


def packages(environment: Path) -> set[str]:
    """Names of what is installed there."""
    listed = _run(
        [sys.executable, "-m", "pip", "--python", str(environment / "python"), "list", "--format=freeze"]
    )
    return {line.partition("==")[0].lower() for line in listed.splitlines()}


def _make(directory: Path, base: str) -> None:
    directory.mkdir(mode=0o755)
    with tempfile.TemporaryDirectory() as scratch:
        # A copy: building leaves its traces in the tree it builds from.
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, Path(scratch, name), ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            else:
                shutil.copy(source, scratch)
        _pip("wheel", "--no-deps", f"--wheel-dir={directory}", scratch)
    [wheel] = directory.glob("*.whl")
    for name, extra in (("site", ""), ("proxy", "[proxy]")):
        _run([base, "-m", "venv", "--without-pip", str(directory / name)])
        _pip(
            "--python", str(directory / name / "bin" / "python"), "install", f"saia{extra} @ {wheel.as_uri()}"
        )


def _pip(*arguments: str) -> None:
    _run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, umask=0o022, cwd="/")
    if done.returncode != 0:
        raise NotInstallable(f"{' '.join(argv)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _python_for_all() -> str:
    """An interpreter of 3.11 or newer that any account may run: our own may lie in root's home."""
    candidates = [str(Path(sys.executable).resolve()), "/usr/local/bin/python3", "/usr/bin/python3"]
    probe = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    for python in candidates:
        try:
            argv = [python, "-I", "-c", probe]
            if (
                subprocess.run(argv, user="nobody", extra_groups=[], cwd="/", capture_output=True).returncode
                == 0
            ):
                return python
        except OSError:
            continue
    raise NotInstallable(f"no Python 3.11 or newer that other accounts can run among {', '.join(candidates)}")


def _fingerprint(base: str) -> str:
    digest = hashlib.sha256(base.encode())
    for file in _source_files():
        digest.update(f"{file.relative_to(ROOT)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _source_files() -> Iterable[Path]:
    for name in SOURCES:
        found = sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]
        yield from (f for f in found if f.is_file() and not {"__pycache__", "saia.egg-info"} & set(f.parts))


def _remove_outdated(keep: Path) -> None:
    for other in CACHE.iterdir():
        if other.is_dir() and other != keep and time.time() - other.stat().st_mtime > OUTDATED_S:
            shutil.rmtree(other, ignore_errors=True)
