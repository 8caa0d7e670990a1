"""What is known to come: maintenance, drained nodes, partition limits; and what it means for jobs of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from saia_engine.model import Exclusion, Instance, LaunchSpec, Node, Partition, Reason, Reservation, Snapshot
from saia_engine.planner.moment import Moment

FAR = float("inf")


@dataclass(frozen=True, slots=True)
class Outlook:
    """The cluster as the last good snapshot shows it, arranged for questions."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    reserved: Mapping[str, tuple[Reservation, ...]] = field(default_factory=dict)
    """By node, soonest first."""
    excluded: frozenset[str] = frozenset()
    """Nodes that new jobs of ours keep off."""
    _free: dict[tuple[str, str, int], float] = field(default_factory=dict, compare=False)
    """What `free_until` has found."""

    @classmethod
    def of(cls, snapshot: Snapshot | None, exclusions: Mapping[str, Exclusion], moment: Moment) -> Outlook:
        excluded = frozenset(name for name, e in exclusions.items() if not moment.reached(e.until))
        if snapshot is None:
            return cls(excluded=excluded)
        reserved: dict[str, tuple[Reservation, ...]] = {}
        for reservation in sorted(snapshot.reservations, key=lambda r: (r.start, r.name)):
            if not moment.reached(reservation.end):
                for node in reservation.nodes:
                    reserved[node] = (*reserved.get(node, ()), reservation)
        return cls(
            snapshot.node_by_name,
            {p.name: p for p in snapshot.partitions},
            snapshot.reservations,
            reserved,
            excluded,
        )

    def without(self, nodes: Iterable[str]) -> Outlook:
        """The same, with these excluded as well."""
        return replace(self, excluded=self.excluded.union(nodes), _free={})

    def partitions_of(self, spec: LaunchSpec) -> list[Partition]:
        """The partitions that its job may go to, as far as they are known."""
        if spec.partition:
            return [self.partitions[name] for name in spec.partition.split(",") if name in self.partitions]
        return [p for p in self.partitions.values() if p.default]

    def longest_time_s(self, spec: LaunchSpec) -> float:
        """The longest limit that a partition of its allows; infinite where none says anything."""
        limits = [p.max_time_s for p in self.partitions_of(spec)]
        return max((FAR if limit is None else limit for limit in limits), default=FAR)

    def free_until(self, spec: LaunchSpec) -> float:
        """Until when enough nodes for one job of this spec are free of reservations that are not its own.

        Nodes that are reserved now count as free of nothing; infinite where there are always enough.
        """
        key = spec.partition, spec.reservation, spec.nodes
        if key not in self._free:
            self._free[key] = self._find_free_until(spec)
        return self._free[key]

    def _find_free_until(self, spec: LaunchSpec) -> float:
        names = {p.name for p in self.partitions_of(spec)}
        ends = sorted(
            (
                min(
                    (r.start for r in self.reserved.get(node.name, ()) if r.name != spec.reservation),
                    default=FAR,
                )
                for node in self.nodes.values()
                if node.usable and node.name not in self.excluded and names.intersection(node.partitions)
            ),
            reverse=True,
        )
        return ends[spec.nodes - 1] if len(ends) >= spec.nodes else FAR

    def maintenance_of(self, instance: Instance) -> Reservation | None:
        """The next maintenance of its node that is not where its job may stay."""
        own = instance.spec.reservation
        return next(
            (r for r in self.reserved.get(instance.node, ()) if r.maintenance and r.name != own), None
        )

    def leaves_by(self, instance: Instance) -> float | None:
        """When its work must be elsewhere: its end, or a maintenance of its node that begins before.

        None where neither is known, as for a job whose limit an admin has lifted.
        """
        window = self.maintenance_of(instance)
        if window is None:
            return instance.end_time
        return window.start if instance.end_time is None else min(instance.end_time, window.start)

    def why_leave(self, instance: Instance) -> Reason | None:
        """Why a running instance should be handed over now, long before its end; None where it may stay."""
        node = self.nodes.get(instance.node)
        name, shown = instance.node, instance.node
        if instance.replace_asked:
            return Reason("replace", "an operator wants it replaced", (("node", shown),))
        if node is not None and ("drain" in node.state or "down" in node.state or "fail" in node.state):
            because = f" ({node.reason})" if node.reason else ""
            return Reason("node-leaves", f"node {shown} is {node.state}{because}", (("node", shown),))
        if name in self.excluded:
            return Reason("node-excluded", f"node {shown} is excluded", (("node", shown),))
        return None
