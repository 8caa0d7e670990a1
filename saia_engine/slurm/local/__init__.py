"""The embedded cluster: jobs on this machine, behind the Slurm port, to try saia without Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saia_engine.slurm.local.cluster import LocalCluster, declare_nodes

__all__ = ["LocalCluster", "declare_nodes"]


def __getattr__(name: str) -> object:
    # On demand: each job's supervisor imports this package and needs none of what the adapter loads.
    if name in __all__:
        from saia_engine.slurm.local import cluster

        return getattr(cluster, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
