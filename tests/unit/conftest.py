"""What many tests begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.memory_slurm import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An engine over a Slurm in memory, with a real journal, lease and instance directories."""
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()
    bench.lease.release()
