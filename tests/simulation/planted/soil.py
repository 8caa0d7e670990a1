"""Plants a bug: changes the source of one module on its way into the interpreter."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType


class DoesNotFit(Exception):
    """The source has changed since: the bug must be written anew."""


@dataclass(frozen=True, slots=True)
class Bug:
    """What somebody might have written. `before` stands once in the module's source, `after` in its place."""

    name: str
    promises: tuple[int, ...]
    """Which of them it breaks: the first is the one that it is planted for, the others show its damage as well."""
    story: str
    """What its author may have thought."""
    module: str
    before: str
    after: str
    race: bool = False
    """It needs two things to happen at the same time, or a crash in between."""

    @property
    def mark(self) -> str:
        """Of its text: another one is another bug."""
        return f"{zlib.crc32(f'{self.module}{self.before}{self.after}'.encode()):08x}"

    def planted_in(self, source: str) -> str:
        """Raises DoesNotFit."""
        found = source.count(self.before)
        if found != 1:
            raise DoesNotFit(f"{self.name}: its place was found {found} times in {self.module}")
        return source.replace(self.before, self.after)


def fits(bug: Bug) -> None:
    """Raises DoesNotFit unless it can be planted and compiled."""
    spec = find_spec(bug.module)
    assert spec is not None and spec.origin is not None
    compile(bug.planted_in(Path(spec.origin).read_text(encoding="utf-8")), bug.module, "exec")


def plant(bug: Bug) -> None:
    """For this process; its module must not have been imported yet."""
    if bug.module in sys.modules:
        raise RuntimeError(f"{bug.module} is imported already: {bug.name} comes too late")
    sys.meta_path.insert(0, _Finder(bug))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._bug.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._bug)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, bug: Bug) -> None:
        super().__init__(fullname, path)
        self._bug = bug

    def get_code(self, fullname: str) -> CodeType:
        """Never from the cache, never into it."""
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(self._bug.planted_in(source), self.path, "exec", dont_inherit=True)
