"""The Slurms that the tests run on: the machine's own, and trixie's 24.11 beside it (`tests/system_deps_24`).

SAIA_SLURM names the one that all tests use. Without it they use the machine's own, and those of the dialect both.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "scancel")


@dataclass(frozen=True, slots=True)
class Version:
    """One installation of Slurm. `place` is where it lies, empty for the machine's own."""

    name: str
    place: str = ""

    @property
    def bin_dir(self) -> str:
        """Of Slurm's programs; empty where the system's PATH finds them."""
        return f"{self.place}/bin" if self.place else ""

    @property
    def path(self) -> str:
        """The PATH on which its programs come first."""
        return f"{self.bin_dir}:{SYSTEM_PATH}" if self.place else SYSTEM_PATH

    def configure(self, directory: Path) -> str:
        """Lines that slurm.conf needs for it, and the file that they name in the cluster's directory."""
        if not self.place:
            return ""
        prolog = directory / "task_prolog"  # a job's srun must be of this version, too
        prolog.write_text(f'#!/bin/sh\necho "export PATH={self.bin_dir}:$PATH"\n')
        prolog.chmod(0o755)
        return f"PluginDir={self.place}/plugins\nTaskProlog={prolog}"

    @property
    def slurmd_options(self) -> tuple[str, ...]:
        return ("-d", f"{self.place}/bin/slurmstepd") if self.place else ()

    def missing(self) -> str:
        """Why it cannot be used here; empty if it can."""
        if self.place and not Path(self.place, "whole").exists():
            return f"no Slurm {self.name} in {self.place}: `make system-deps-24` puts it there"
        absent = [program for program in PROGRAMS if shutil.which(program, path=self.path) is None]
        return (
            f"not installed: {', '.join(absent)}; `make system-deps` installs them on Debian"
            if absent
            else ""
        )

    def number(self) -> tuple[int, int]:
        """(22, 5) for 22.05. Raises RuntimeError."""
        env = {"PATH": self.path}
        text = subprocess.run(["slurmctld", "-V"], env=env, capture_output=True, text=True, check=True).stdout
        found = re.search(r"(\d+)\.(\d+)", text)
        if found is None:
            raise RuntimeError(f"`slurmctld -V` says {text!r}: no version")
        return int(found[1]), int(found[2])


NATIVE = Version("native")
LATER = Version("24.11", "/var/cache/saia-slurm/24.11")
_BY_NAME = {version.name: version for version in (NATIVE, LATER)}


def chosen() -> Version:
    """What a test runs on that needs one Slurm, of whichever version."""
    return _BY_NAME[os.environ.get("SAIA_SLURM") or NATIVE.name]


def dialects() -> tuple[Version, ...]:
    """What a test runs on that must hold for each version."""
    return (chosen(),) if os.environ.get("SAIA_SLURM") else (NATIVE, LATER)
