"""One real sshd for all tests of a session, or one clear reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.ssh.sshd import Sshd, SshdUnavailable


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """A running sshd. Fails, not skips, under SAIA_REQUIRE_REAL=1."""
    try:
        running = Sshd()
        running.__enter__()
    except SshdUnavailable as exc:
        if os.environ.get("SAIA_REQUIRE_REAL") == "1":
            pytest.fail(str(exc))
        pytest.skip(str(exc))
    yield running
    running.close()
