"""One engine acts: the lock of a host, and the lease in the shared directory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from saia_engine.lease import HostSeat, Lease, LeaseLost, LeaseRefused, LeaseUnreadable

HOLDER = """
import sys, time
from pathlib import Path
from saia_engine.lease import Lease
lease = Lease.acquire(Path(sys.argv[1]), Path(sys.argv[1]))
print(lease.holder.epoch, flush=True)
time.sleep(60)
"""


@contextmanager
def other_engine(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lease, and its epoch."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def taken_by_host(directory: Path, host: str, epoch: int = 7) -> None:
    holder = {"host": host, "boot_id": "b", "epoch": epoch, "pid": 1}
    (directory / "lease.json").write_text(json.dumps(holder))


def test_a_second_engine_on_the_host_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with other_engine(tmp_path) as (process, _), pytest.raises(LeaseRefused, match=f"pid {process.pid}"):
        Lease.acquire(tmp_path, tmp_path)


def test_kill_9_leaves_nothing_that_needs_hands(tmp_path: Path) -> None:
    with other_engine(tmp_path) as (process, epoch):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        lease = Lease.acquire(tmp_path, tmp_path)
        assert lease.holder.epoch > epoch
        lease.check()
        lease.release()


def test_not_even_takeover_pushes_an_engine_of_the_same_host_aside(tmp_path: Path) -> None:
    with other_engine(tmp_path), pytest.raises(LeaseRefused, match="stop it first"):
        Lease.acquire(tmp_path, tmp_path, takeover=True)


def test_a_lease_of_another_host_is_refused_with_the_way_out(tmp_path: Path) -> None:
    taken_by_host(tmp_path, "login2")
    with pytest.raises(LeaseRefused, match=r"login2.*saia-engine takeover"):
        Lease.acquire(tmp_path, tmp_path)
    assert json.loads((tmp_path / "lease.json").read_text())["host"] == "login2"


def test_after_a_refusal_the_lock_is_free(tmp_path: Path) -> None:
    taken_by_host(tmp_path, "login2")
    with pytest.raises(LeaseRefused):
        Lease.acquire(tmp_path, tmp_path)
    taken_by_host(tmp_path, socket.gethostname())
    Lease.acquire(tmp_path, tmp_path).release()


def test_takeover_raises_the_epoch_and_the_old_holder_notices(tmp_path: Path) -> None:
    old_host, new_host, shared = tmp_path / "old", tmp_path / "new", tmp_path / "shared"
    for directory in (old_host, new_host, shared):
        directory.mkdir()
    old = Lease.acquire(old_host, shared)
    old.check()
    new = Lease.acquire(new_host, shared, takeover=True)
    assert new.holder.epoch > old.holder.epoch
    new.check()
    with pytest.raises(LeaseLost, match=f"epoch {new.holder.epoch}"):
        old.check()


def test_an_epoch_is_new_though_the_shared_file_still_hides_the_last_one(tmp_path: Path) -> None:
    new_host, shared = tmp_path / "new", tmp_path / "shared"
    for directory in (new_host, shared):
        directory.mkdir()
    taken_by_host(shared, "elsewhere", epoch=7)
    before = int(time.time())
    lease = Lease.acquire(new_host, shared, takeover=True)
    # Not 8, which the one that is not seen may have; nor ahead, or the next takeover's could be less.
    assert before <= lease.holder.epoch <= time.time()


def test_an_epoch_rises_also_where_the_last_one_was_of_a_clock_ahead(tmp_path: Path) -> None:
    ahead = int(time.time()) + 86_400
    taken_by_host(tmp_path, "elsewhere", epoch=ahead)
    assert Lease.acquire(tmp_path, tmp_path, takeover=True).holder.epoch > ahead


def test_two_hosts_that_do_not_see_each_others_lease_yet_count_on_differently(tmp_path: Path) -> None:
    epochs = set()
    for host in ("login1", "login2"):
        taken_by_host(tmp_path, "elsewhere", epoch=int(time.time()) + 86_400)
        seat = HostSeat(tmp_path, tmp_path)
        seat.host = host
        lease = Lease.take(seat, takeover=True)
        lease.release()
        epochs.add(lease.holder.epoch)
    assert len(epochs) == 2


def test_a_lease_that_cannot_be_read_is_no_loss_but_no_leave_to_act(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path, tmp_path)
    file = tmp_path / "lease.json"
    whole = file.read_bytes()
    for content in (b"", b"{", b'{"host": 1}', b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(LeaseUnreadable, match="cannot be read"):
            lease.check()
    file.unlink()
    with pytest.raises(LeaseUnreadable, match="gone"):
        lease.check()
    file.write_bytes(whole)
    lease.check()


def test_a_damaged_lease_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text("{")
    with pytest.raises(LeaseUnreadable, match="remove it"):
        Lease.acquire(tmp_path, tmp_path)
