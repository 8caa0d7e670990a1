"""Tests side by side: those that compute give way to those that wait."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

COMPUTING = {"simulation", "property"}


@pytest.fixture(autouse=True, scope="module")
def gives_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Beside a simulation, real processes would come too late for what a test promises of them.

    Only root may raise a priority again, so only root lowers it.
    """
    if request.path.parent.name not in COMPUTING or os.geteuid() != 0:
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, before + 5)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)
