"""The engine as a process: chooses the adapter, takes the lease, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

from saia_engine import rebuild as journal
from saia_engine import site
from saia_engine.api.server import serving
from saia_engine.clock import SteadyClock
from saia_engine.config import Config
from saia_engine.edge import lifeline, logs
from saia_engine.engine import Engine
from saia_engine.lease import SHARED_DELAY_S, Lease
from saia_engine.rebuild import Rebuilt
from saia_engine.slurm.cli import SlurmCli
from saia_engine.slurm.local import LocalCluster, declare_nodes
from saia_engine.slurm.port import Slurm, SlurmUnavailable

log = logs.get_logger("daemon")


def run(config: Config, log_file: Path | None = None) -> int:
    """Until SIGTERM or SIGINT; returns the exit code. Raises the errors that `cli` maps to exit codes."""
    logs.set_up(file=log_file)
    return _run(config, takeover=False)


def takeover(config: Config) -> int:
    """Run here for a lost host: raise the epoch, wait until the old holder must have seen it, then run."""
    logs.set_up()
    return _run(config, takeover=True)


def _run(config: Config, takeover: bool) -> int:
    site.prepare(config)
    lease = Lease.acquire(config.paths.state_dir, config.paths.shared_dir, takeover=takeover)
    try:
        if takeover:
            wait_s = SHARED_DELAY_S + config.command_timeout_s
            log.warning("takeover", epoch=lease.holder.epoch, waiting_s=wait_s)
            time.sleep(wait_s)
        asyncio.run(serve(config, lease))
    finally:
        lease.release()
    return 0


def rebuild(config: Config) -> Rebuilt:
    """Make a new journal where the old one is lost or damaged; refused while an engine runs."""
    logs.set_up("error")
    site.prepare(config)
    lease = Lease.acquire(config.paths.state_dir, config.paths.shared_dir)
    try:
        return asyncio.run(_rebuild(config, lease))
    finally:
        lease.release()


async def _rebuild(config: Config, lease: Lease) -> Rebuilt:
    slurm = slurm_of(config, SteadyClock())
    try:
        return await journal.rebuild(config, lease, slurm)
    finally:
        await slurm.close()


async def serve(config: Config, lease: Lease) -> None:
    """The whole engine, until SIGTERM, SIGINT or the end of the demo's lifeline."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pipe = lifeline.inherited()
    if pipe is not None:
        lifeline.follow(pipe, lambda: os._exit(1))
    clock = SteadyClock()
    engine = Engine(config, lease, slurm_of(config, clock, pipe), clock)
    loop.add_signal_handler(signal.SIGHUP, engine.reload)
    async with serving(
        engine,
        operator_socket=config.paths.operator_socket,
        gate_socket=config.paths.gate_socket,
        operators_group=config.operators_group,
        gate_group=config.gate_group,
    ):
        log.info("engine_started", cluster=config.name, socket=str(config.paths.operator_socket))
        await engine.run(stop)
    log.info("engine_stopped")


def slurm_of(config: Config, clock: SteadyClock, pipe: int | None = None) -> Slurm:
    """The adapter for the configured kind of cluster. Raises SlurmUnavailable where Slurm is not installed."""
    if config.kind == "local":
        local = config.local
        declared = declare_nodes(
            local.nodes,
            cpus=local.cpus_per_node,
            memory_mib=local.memory_per_node_mib,
            gpus=local.gpus_per_node,
        )
        return LocalCluster(config.paths.state_dir / "local", declared, site.user(), pipe)
    where = str(config.slurm_bin) if config.slurm_bin else os.environ.get("PATH", os.defpath)
    missing = [name for name in SlurmCli.COMMANDS if shutil.which(name, path=where) is None]
    if missing:
        raise SlurmUnavailable(
            f"Slurm's {', '.join(missing)} not found in {where}: install Slurm's client commands, set"
            ' cluster.slurm_bin, or try saia without Slurm by cluster.kind = "local"'
        )
    if config.slurm_conf and not config.slurm_conf.is_file():
        raise SlurmUnavailable(f"there is no file {config.slurm_conf}: correct cluster.slurm_conf")
    return SlurmCli(
        site.user(),
        str(config.slurm_bin or ""),
        str(config.slurm_conf or ""),
        config.command_timeout_s,
        clock.now,
    )
