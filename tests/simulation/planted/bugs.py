"""The planted bugs, by the promise that each is planted for."""

from __future__ import annotations

from tests.simulation.planted.soil import Bug

RECONCILER = "saia_engine.reconciler"
FLEET = "saia_engine.planner.fleet"

_ALL = (
    # ------------------------------------------------------------ 1: not more than wanted
    Bug(
        "pending-not-adopted",
        (1, 3, 4),
        "A job that waits does not run: it is adopted when it starts.",
        RECONCILER,
        'job.ended or job.state == "COMPLETING":\n                continue',
        'job.ended or job.state in ("COMPLETING", "PENDING"):\n                continue',
        race=True,
    ),
    # ------------------------------------------------------------ 2: only ours
    Bug(
        "leftover-cleared",
        (2,),
        "A job with our token that nobody has claimed for ten minutes is left over from a lost directory.",
        RECONCILER,
        "            if record is None or (record.id, record.service) != (name, token[2]):\n",
        "            if record is None and snapshot.taken_at - job.submit_time > 600.0:\n"
        '                await self._cancel_job(job.id, job.name, name, "nobody has claimed it for ten minutes")\n'
        "                continue\n"
        "            if record is None or (record.id, record.service) != (name, token[2]):\n",
    ),
    # ------------------------------------------------------------ 3: the intent is durable
    Bug(
        "urgent-submit-twice",
        (3, 4, 1),
        "A replacement is urgent: under the same token a second sbatch does no harm.",
        RECONCILER,
        """\
            # It may have run: the slot stays taken until two good snapshots lack the token (promise 4).
""",
        """\
            if launch.replaces:
                try:
                    job_id = await self._slurm.submit(request)
                    self._keep(lifecycle.submitted(self.instances[name], job_id, self._now()))
                    return
                except SlurmError:
                    pass
""",
    ),
    # ------------------------------------------------------------ 4: unknown submits
    Bug(
        "absent-since-sent",
        (4, 3, 1),
        "A submit that timed out has been absent since it was sent.",
        RECONCILER,
        """\
            self._record("submit-unknown", Severity.WARNING, name, str(exc))
""",
        """\
            self._keep(replace(self.instances[name], absent_since=now))
            self._record("submit-unknown", Severity.WARNING, name, str(exc))
""",
        race=True,
    ),
    Bug(
        "replacement-asked-again",
        (4, 1, 3),
        "A replacement is urgent: where Slurm does not show it at the next poll, its submit came to nothing.",
        "saia_engine.planner.lifecycle",
        "    if alive or taken_at - instance.absent_since < MESSAGE_TIMEOUT_S + poll_s:\n",
        "    waited_s = taken_at - instance.absent_since\n"
        "    urgent = instance.replaces and not instance.job_id and waited_s >= poll_s\n"
        "    if alive or (waited_s < MESSAGE_TIMEOUT_S + poll_s and not urgent):\n",
        race=True,
    ),
    # ------------------------------------------------------------ 5: a restarted controller
    Bug(
        "believes-what-is-not-empty",
        (5,),
        "Only an empty answer of a restarted controller is doubtful.",
        "saia_engine.belief",
        "if snapshot.taken_at < self._believed_from:",
        "if snapshot.taken_at < self._believed_from and not any(\n"
        '            job.name.startswith("saia.") for job in snapshot.jobs\n'
        "        ):",
    ),
    # ------------------------------------------------------------ 6: bad answers
    Bug(
        "reacts-after-bad-answer",
        (6, 5),
        "The last good answer is young enough, whatever came after it.",
        RECONCILER,
        "if snapshot is None or self.slurm_fault:",
        "if snapshot is None:",
        race=True,
    ),
    # ------------------------------------------------------------ 7: the freeze
    Bug(
        "only-who-served-speaks",
        (7, 1),
        "Who has never served has nothing to say.",
        RECONCILER,
        "alive=lifecycle.fresh(self._probes.statuses.get(instance.id), self._now()),\n            )",
        "alive=instance.served\n"
        "                and lifecycle.fresh(self._probes.statuses.get(instance.id), self._now()),\n            )",
    ),
    # ------------------------------------------------------------ 8: generations
    Bug(
        "requeued-keeps-route",
        (8,),
        "A requeued instance comes back: its gates may keep what they have until then.",
        "saia_engine.publisher",
        "        self._standing, self._made_of = standing, made_of\n",
        """\
        for name, old in self._standing.items():
            instance = instances.get(name)
            if instance is not None and instance.live and old.generation < instance.generation:
                standing.setdefault(name, old)
        self._standing, self._made_of = standing, made_of
""",
    ),
    # ------------------------------------------------------------ 9: readiness
    Bug(
        "speaks-so-routed",
        (9,),
        "Its agent speaks and it has served: it will be back in a moment.",
        "saia_engine.publisher",
        "        fit = (i for i in instances.values() if lifecycle.routable(i, statuses.get(i.id), now))\n",
        """\
        fit = (
            i
            for i in instances.values()
            if lifecycle.routable(i, statuses.get(i.id), now)
            or (i.served and i.live and lifecycle.fresh(statuses.get(i.id), now))
        )
""",
    ),
    # ------------------------------------------------------------ 10: min_available
    Bug(
        "others-serve-on",
        (10,),
        "Where others serve, a long drain begins in time, with or without a replacement.",
        "saia_engine.planner.handover",
        "    over = fleet.admission_over(old)\n",
        "    over = fleet.admission_over(old)\n"
        "    others = fleet.wanted > 1 and timing.drain_deadline_s > 2 * timing.admission_margin_s\n"
        "    if others and old.end_time is not None:\n"
        "        over = over or fleet.reached(timeline.drain_by(old.end_time, timing))\n",
    ),
    # ------------------------------------------------------------ 11: min_ready
    Bug(
        "late-heir-at-once",
        (11,),
        "A replacement that comes late has no time to prove itself.",
        "saia_engine.planner.handover",
        "    over = fleet.admission_over(old)\n",
        "    over = fleet.admission_over(old)\n"
        "    if heir is not None and heir.state is State.READY and old.end_time is not None:\n"
        "        over = over or fleet.reached(timeline.drain_by(old.end_time, timing))\n",
    ),
    # ------------------------------------------------------------ 12: streams
    Bug(
        "admits-half-a-drain",
        (12,),
        "What is admitted last needs no more than half of what drains.",
        "saia_engine.publisher",
        '        "admit_until": timeline.admit_until(end, timing),\n',
        '        "admit_until": timeline.last_cut(end, timing)\n'
        "        - min(timing.admission_margin_s, (timing.drain_deadline_s / 2) if service else 1e9),\n",
    ),
    Bug(
        "others-take-its-streams",
        (12,),
        "Where others serve, a long drain need not wait for the end: drain_deadline is long enough.",
        "saia_engine.planner.sizing",
        "    if drain.kind is DrainKind.HANDOVER or last_cut <= by_order:\n",
        "    if fleet.wanted > 1 and timing.drain_deadline_s > 2 * timing.admission_margin_s:\n"
        "        last_cut = min(last_cut, by_order)\n"
        "    if drain.kind is DrainKind.HANDOVER or last_cut <= by_order:\n",
    ),
    # ------------------------------------------------------------ 13: end times
    Bug(
        "end-never-later",
        (13,),
        "A limit that an admin lengthens is a favour: whoever does not count on it is safe.",
        "saia_engine.planner.lifecycle",
        """\
            end_time=job.end_time,
        )
        if instance.state in""",
        """\
            end_time=min(job.end_time, instance.end_time)
            if job.end_time is not None and instance.end_time is not None
            else job.end_time,
        )
        if instance.state in""",
    ),
    Bug(
        "polls-ever-slower",
        (13, 22, 23),
        "A controller in trouble is not pressed: each failure doubles the wait for the next poll.",
        "saia_engine.control",
        "            await asyncio.sleep(self._pace.poll_s - (time() - began) % self._pace.poll_s)\n",
        '            self._failures = getattr(self, "_failures", 0) + 1 if self._reconciler.slurm_fault else 0\n'
        "            wait_s = min(600.0, self._pace.poll_s * 2.0**self._failures)\n"
        "            await asyncio.sleep(wait_s - (time() - began) % self._pace.poll_s)\n",
    ),
    Bug(
        "quiet-polls",
        (13, 22, 23),
        "Where nothing was to be done, asking every six minutes will do.",
        "saia_engine.control",
        "            await asyncio.sleep(self._pace.poll_s - (time() - began) % self._pace.poll_s)\n",
        "            quiet = self._reconciler.snapshot is not None and not self._reconciler.last_plan.actions\n"
        "            wait_s = 24 * self._pace.poll_s if quiet else self._pace.poll_s\n"
        "            await asyncio.sleep(wait_s - (time() - began) % self._pace.poll_s)\n",
    ),
    # ------------------------------------------------------------ 14: the clock
    Bug(
        "drains-by-the-wall",
        (14, 12),
        "An operator reads when a drain began: that is a wall clock time.",
        RECONCILER,
        "self._drain(instance, Drain(kind, self._now()), reason, uid)",
        "self._drain(instance, Drain(kind, self._now() + self._clock.skew_s), reason, uid)",
    ),
    Bug(
        "wall-ages-answers",
        (14, 22, 23),
        "How old an answer is, this host's clock tells.",
        RECONCILER,
        "        if self._now() - snapshot.taken_at > STALE_POLLS * self._poll_interval_s:\n",
        "        seen_at = self._now() + self._clock.skew_s\n"
        "        if seen_at - snapshot.taken_at > STALE_POLLS * self._poll_interval_s:\n",
    ),
    # ------------------------------------------------------------ 15: health
    Bug(
        "late-word-unrouted",
        (15,),
        "Whose word is late is passed over until it comes: gates should not wait for it.",
        "saia_engine.publisher",
        "        fit = (i for i in instances.values() if lifecycle.routable(i, statuses.get(i.id), now))\n",
        """\
        late = {name for name, status in statuses.items() if now - status.seen_at > 6.5}
        fit = (
            i
            for i in instances.values()
            if i.id not in late and lifecycle.routable(i, statuses.get(i.id), now)
        )
""",
    ),
    # ------------------------------------------------------------ 16: back-off
    Bug(
        "restart-forgives",
        (16,),
        "A new engine need not remember what has ended.",
        RECONCILER,
        "self.instances = _remembered(store, now())",
        "self.instances = {name: i for name, i in _remembered(store, now()).items() if i.live}",
        race=True,
    ),
    Bug(
        "back-off-of-all",
        (16, 22, 23),
        "Slurm is one: who fails slows the others, too.",
        "saia_engine.planner.brakes",
        "        own = (i for i in self._by_service.get(service, ()) if i.revision == launch.revision)\n",
        "        all_of = [i for instances in self._by_service.values() for i in instances]\n"
        "        own = (i for i in all_of if i.service != service or i.revision == launch.revision)\n",
    ),
    # ------------------------------------------------------------ 17: one observation a tick
    Bug(
        "asks-again-at-once",
        (17,),
        "After a bad answer a good one is wanted soon.",
        RECONCILER,
        """\
        async with self._busy:
            await self._advance()
""",
        """\
        if self.slurm_fault:
            await self.poll()
            return
        async with self._busy:
            await self._advance()
""",
    ),
    Bug(
        "three-tries-a-tick",
        (17,),
        "What fails once may go well at once: three tries make a poll.",
        "saia_engine.control",
        "            await self._guarded(self._reconciler.poll)\n",
        "            await self._guarded(self._reconciler.poll)\n"
        "            for _ in range(2):\n"
        "                if self._reconciler.slurm_fault:\n"
        "                    await self._guarded(self._reconciler.poll)\n",
    ),
    # ------------------------------------------------------------ 18: one engine acts
    Bug(
        "lease-remembered",
        (18,),
        "The shared file system is slow: what was read a moment ago still holds.",
        RECONCILER,
        """\
        await self._offload(self._lease.check)
""",
        """\
        if self._now() - getattr(self, "_lease_seen_at", 0.0) > 600.0:
            await self._offload(self._lease.check)
            self._lease_seen_at = self._now()
""",
        race=True,
    ),
    # ------------------------------------------------------------ 19: the journal
    Bug(
        "cancel-needs-no-journal",
        (19,),
        "Sending a cancel twice does no harm, so it need not be written down.",
        RECONCILER,
        """\
        self._keep(replace(instance, cancel_sent_at=self._now()))
        self._explain("cancel", instance.id, reason)
""",
        """\
        try:
            self._keep(replace(instance, cancel_sent_at=self._now()))
            self._explain("cancel", instance.id, reason)
        except Exception as exc:
            log.warning("cancel_not_written", fault=str(exc))
""",
        race=True,
    ),
    # ------------------------------------------------------------ 20: removed services
    Bug(
        "removed-cancelled-once",
        (20,),
        "Of a removed service nobody counts on anything: one cancel each will do.",
        "saia_engine.planner.sizing",
        "        if sent_at is not None and not fleet.reached(sent_at + CANCEL_AGAIN_S):\n",
        "        if sent_at is not None and (fleet.service is None or not fleet.reached(sent_at + CANCEL_AGAIN_S)):\n",
    ),
    # ------------------------------------------------------------ 21: the gate
    Bug(
        "gate-clears-away",
        (21,),
        "Whose admission has long been over and who is still there, is no use any more: its job may end.",
        "saia_engine.gate.admission",
        """\
    if now >= route.admit_until:
""",
        """\
    if now >= route.admit_until + 30:
        import contextlib
        import subprocess

        with contextlib.suppress(OSError):
            subprocess.run(["scancel", f"--name=saia.{route.instance}"], check=False)
    if now >= route.admit_until:
""",
    ),
    Bug(
        "gate-asks-for-another",
        (21,),
        "Where a route is over and there is no other yet, the gate is the first to see that one is missing.",
        "saia_engine.gate.admission",
        "    check_method(asked.method, route.methods)\n",
        "    check_method(asked.method, route.methods)\n"
        "    if now >= route.admit_until - 5:\n"
        "        import contextlib\n"
        "        import subprocess\n\n"
        "        with contextlib.suppress(OSError):\n"
        '            subprocess.run(["sbatch", f"--job-name=saia.{route.instance}"], check=False)\n',
    ),
    # ------------------------------------------------------------ 22: it comes about
    Bug(
        "lease-away-for-good",
        (22, 23),
        "Without its lease an engine does nothing more.",
        "saia_engine.control",
        """\
        try:
            await step()
        except LeaseUnreadable as exc:
""",
        """\
        if getattr(self, "_lease_away", False):
            return
        try:
            await step()
        except LeaseUnreadable as exc:
            self._lease_away = True
""",
    ),
    # ------------------------------------------------------------ 23: in time
    Bug(
        "replacements-can-wait",
        (23,),
        "A launch that came to nothing: Slurm is in trouble, and who is to be replaced still runs.",
        RECONCILER,
        "            return  # a reload has just removed it\n",
        "            return  # a reload has just removed it\n"
        "        ended = [i.ended_at for i in self.instances.values() if i.ended_at is not None and not i.job_id]\n"
        "        if launch.replaces and self._now() - max(ended, default=0.0) < 900.0:\n"
        "            return\n",
    ),
    # ------------------------------------------------------------ 24: deadlines
    Bug(
        "speaks-so-recovers",
        (24, 22),
        "An unready one whose agent speaks and that is alive will be back: its deadline begins anew.",
        "saia_engine.planner.lifecycle",
        """\
    if status is not None and not silent and status.verified and _serves(status):
""",
        """\
    if instance.state is State.UNREADY and status is not None and not silent and status.alive:
        instance = replace(instance, state_since=now)
    if status is not None and not silent and status.verified and _serves(status):
""",
    ),
)

BUGS = {bug.name: bug for bug in _ALL}
