"""Slurm's answers as values, in the spellings of 21.08 to 24.11."""

from __future__ import annotations

import pytest

from saia_engine.model import Partition, Reservation
from saia_engine.slurm import text

NONCE = "0123456789abcdef"
END = f"|{NONCE}|"


def job_row(
    head: str,
    *,
    allocated="cpu=1,node=1,billing=1",
    per_job="N/A",
    per_node="N/A",
    reason="None",
    name="wrap",
) -> str:
    return END.join([head, allocated, per_job, per_node, reason, name]) + END + "\n"


RUNNING = "1|RUNNING|1795516645|1795516646|1795520246|1:00:00|0|1|1|4294901759|anna|gpu|gpu01"
PENDING = "5|PENDING|1795516448|N/A|N/A|1:00:00|0|9|9|4294901755|anna|gpu|"


def one_job(row: str):
    (job,) = text.jobs(row, NONCE)
    return job


def test_a_running_job():
    job = one_job(job_row(RUNNING, per_node="gres:gpu:a100:2", name="saia.i.hpc.chat.n1"))
    assert (job.id, job.name, job.user, job.state) == (1, "saia.i.hpc.chat.n1", "anna", "RUNNING")
    assert (job.submit_time, job.start_time, job.end_time) == (1795516645.0, 1795516646.0, 1795520246.0)
    assert (job.time_limit_s, job.restarts, job.partition, job.reason) == (3600.0, 0, "gpu", "")
    assert (job.nodes, job.node_count, job.cpus, job.priority) == (("gpu01",), 1, 1, 4294901759)
    assert (job.gres, job.gpus) == ("gpu:a100:2", 2)
    assert not job.ended


def test_a_pending_job_has_no_end_and_may_have_a_forecast_of_its_start():
    waiting = one_job(job_row(PENDING, reason="Resources"))
    assert (waiting.start_time, waiting.end_time, waiting.nodes, waiting.reason) == (
        None,
        None,
        (),
        "Resources",
    )
    forecast = one_job(job_row(PENDING.replace("N/A|N/A", "1795520048|1795523648")))
    assert (forecast.start_time, forecast.end_time) == (1795520048.0, None)


def test_an_unlimited_job_has_no_end():
    job = one_job(job_row(RUNNING.replace("1795520246|1:00:00", "NONE|UNLIMITED")))
    assert (job.end_time, job.time_limit_s) == (None, None)


@pytest.mark.parametrize("shown", ["123", "123_4", "123_[1-5%2]", "123_[1,3-5,...]", "123+1"])
def test_of_an_array_or_a_het_job_the_leading_id_counts(shown):
    assert one_job(job_row(RUNNING.replace("1|", f"{shown}|", 1))).id == 123


def test_what_nothing_is_decided_by_may_be_unreadable():
    job = one_job(job_row("1|RUNNING|1795516645|1795516646|1795520246|1:00:00|0|N/A|64+|N/A|anna|gpu|gpu01"))
    assert (job.node_count, job.cpus, job.priority) == (1, 64, 0)


def test_a_requeued_job_shows_its_restarts():
    assert one_job(job_row(RUNNING.replace("1:00:00|0|", "1:00:00|3|"))).restarts == 3


def test_an_empty_queue_is_no_job():
    assert text.jobs("", NONCE) == ()
    assert text.jobs("\n", NONCE) == ()


@pytest.mark.parametrize(
    ("allocated", "per_job", "per_node", "nodes", "expected"),
    [
        ("cpu=1,node=1,billing=1", "N/A", "gres:gpu:a100:2", 1, 2),  # 21.08, 22.05
        ("cpu=1,node=1,billing=1", "N/A", "gres/gpu:a100:2", 1, 2),  # 24.11
        ("cpu=2,node=2,billing=2", "N/A", "gres:gpu:2", 2, 4),
        ("cpu=1,node=1,billing=1", "gres:gpu:3", "N/A", 1, 3),
        ("cpu=8,mem=1G,node=2,gres/gpu=4,gres/gpu:a100=4", "N/A", "gres/gpu:a100:2", 2, 4),
        ("cpu=1,node=1", "N/A", "N/A", 1, 0),
        ("N/A", "N/A", "gres:gpu:a|b\n:1", 1, 1),
    ],
)
def test_gpus_of_a_job_are_the_sum_over_its_nodes(allocated, per_job, per_node, nodes, expected):
    head = RUNNING.replace("|0|1|1|", f"|0|{nodes}|1|")
    job = one_job(job_row(head, allocated=allocated, per_job=per_job, per_node=per_node))
    assert job.gpus == expected


def test_a_name_that_looks_like_a_row_stays_a_name():
    forged = f"x\n{RUNNING.replace('1|', '99|', 1)}|guess|a|b"
    found = text.jobs(job_row(RUNNING, name=forged) + job_row(PENDING), NONCE)
    assert [job.id for job in found] == [1, 5]
    assert found[0].name == forged


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (job_row(RUNNING)[:-10], "cut short"),
        (job_row(RUNNING) + "slurm_load_jobs error: Socket timed out\n", "Socket timed out"),
        (job_row("1|RUNNING"), "2 fields instead of 13"),
        (job_row(RUNNING.replace("1795516645", "2026-11-24T10:00:00")), "2026-11-24T10:00:00"),
        (job_row(RUNNING.replace("1:00:00", "soon")), "soon"),
        (job_row(RUNNING.replace("gpu01", "gpu[01-")), "gpu[01-"),
        (job_row(RUNNING.replace("gpu01", "gpu[1-99999999]")), "1-99999999"),
        (job_row(RUNNING.replace("1|", "one|", 1)), "JobID"),
        (job_row(RUNNING.replace("1|", "_4|", 1)), "JobID"),
        (job_row(RUNNING.replace("1|", "1\x1b]0;x\a|", 1)), r"\x1b"),
    ],
)
def test_what_does_not_parse_is_said_in_one_clean_line(broken, says):
    with pytest.raises(text.Unparsable) as caught:
        text.jobs(broken, NONCE)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def node_row(
    state="mixed",
    cpus="6/10/0/16",
    partition="gpu*",
    gres="gpu:a100:4",
    used="gpu:a100:2(IDX:0-1)",
    reason="none",
    available="up",
    limit="infinite",
    name="gpu01",
):
    head = f"{name}|{state}|127.0.0.1|{cpus}|64000|{partition}|{available}|{limit}"
    return END.join([head, gres, used, reason]) + END + "\n"


def test_a_node_in_two_partitions_is_one_node():
    (node,) = text.nodes(node_row() + node_row(partition="short"), NONCE)
    assert (node.name, node.state, node.address, node.reason) == ("gpu01", "mixed", "127.0.0.1", "")
    assert node.partitions == ("gpu", "short")
    assert (node.cpus, node.cpus_allocated, node.memory_mib) == (16, 6, 64000)
    assert (node.gpu_type, node.gpus, node.gpus_allocated) == ("a100", 4, 2)


def test_a_drained_node_says_why_in_any_words():
    (node,) = text.nodes(node_row(state="idle+drain", reason="a|b\nc"), NONCE)
    assert (node.state, node.reason, node.usable) == ("idle+drain", "a|b\nc", False)


def test_partitions_say_who_may_start_where_and_how_long():
    printed = node_row() + node_row(name="gpu02") + node_row(partition="short", limit="30:00")
    printed += node_row(partition="old", available="inactive", limit="2-00:00:00") + node_row(partition="n/a")
    assert text.partitions(printed, NONCE) == (
        Partition("gpu", True, None, ("gpu01", "gpu02"), default=True),
        Partition("short", True, 1800.0, ("gpu01",)),
        Partition("old", False, 172800.0, ("gpu01",)),
    )
    (node,) = text.nodes(node_row(partition="n/a"), NONCE)
    assert node.partitions == ()


@pytest.mark.parametrize(
    ("available", "up"), [("up", True), ("down", False), ("drain", False), ("inact", False), ("novel", True)]
)
def test_a_partition_that_is_not_up_starts_nothing(available, up):
    (partition,) = text.partitions(node_row(available=available), NONCE)
    assert partition.up is up


RESERVED = (
    "ReservationName=service StartTime=1795529914 EndTime=1795533514 Duration=01:00:00 Nodes=gpu[01-02]"
    " NodeCnt=2 CoreCnt=32 Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES TRES=cpu=32"
    " Users=root,anna Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null)"
    " MaxStartDelay=(null)"
)


def test_a_reservation():
    assert text.reservations(f"{RESERVED}\n") == (
        Reservation(
            "service",
            1795529914.0,
            1795533514.0,
            nodes=("gpu01", "gpu02"),
            flags=("MAINT", "IGNORE_JOBS", "SPEC_NODES"),
            users=("root", "anna"),
        ),
    )
    assert text.reservations(RESERVED)[0].maintenance
    assert text.reservations("No reservations in the system\n") == ()


@pytest.mark.parametrize(
    ("printed", "names"),
    [
        (RESERVED.replace("service", "a b"), ["a b"]),
        (RESERVED + " Comment=x StartTime=1 Nodes=gpu09 Flags=FLEX", ["service"]),
        (RESERVED.replace("service", "x\ny") + f"\n{RESERVED}", ["service"]),
        (RESERVED.replace("1795529914", "Unknown") + f"\n{RESERVED}", ["service"]),
        ("a line of another kind\n" + RESERVED, ["service"]),
    ],
)
def test_an_odd_reservation_hides_no_other(printed, names):
    found = text.reservations(printed)
    assert [reservation.name for reservation in found] == names
    assert found[-1].nodes == ("gpu01", "gpu02") and found[-1].maintenance


def test_a_reservation_that_says_little_still_has_its_times():
    assert text.reservations("ReservationName=r StartTime=5 EndTime=9\n") == (Reservation("r", 5.0, 9.0),)
    (odd,) = text.reservations(
        "ReservationName=r StartTime=5 EndTime=9 Duration=4 Nodes=gpu[ Flags= Users=-x"
    )
    assert (odd.nodes, odd.flags, odd.users, odd.maintenance) == ((), (), ("-x",), False)


@pytest.mark.parametrize("broken", [node_row(cpus="6/10"), node_row(cpus="6/10/0/many"), node_row()[:-3]])
def test_a_broken_node_row_is_an_error(broken):
    with pytest.raises(text.Unparsable):
        text.nodes(broken, NONCE)


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ("mixed", "mixed"),
        ("down+not_responding", "down*"),
        ("IDLE+DRAIN+NOT_RESPONDING", "idle+drain*"),
        ("idle*", "idle*"),
        ("allocated+maintenance", "allocated+maintenance"),
    ],
)
def test_node_states(printed, state):
    assert text.node_state(printed) == state


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ("RUNNING", "RUNNING"),
        ("completing", "COMPLETING"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+", "CANCELLED"),
        ("RUNNING,COMPLETING", "COMPLETING"),
        ("RUNNING,CONFIGURING", "RUNNING"),
        ("?", "?"),
        ("NOVEL", "NOVEL"),
    ],
)
def test_job_states_keep_what_is_unknown(printed, state):
    assert text.job_state(printed) == state


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [
        ("5:00", 300),
        ("0:30", 30),
        ("1:00:00", 3600),
        ("01:00:00", 3600),
        ("1-02:03:04", 93784),
        ("365-00:00:00", 31536000),
        ("UNLIMITED", None),
        ("infinite", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("Partition_Limit", None),
    ],
)
def test_time_limits(printed, seconds):
    assert text.time_limit(printed) == seconds


@pytest.mark.parametrize("printed", ["N/A", "Unknown", "NONE", "0", ""])
def test_no_time(printed):
    assert text.epoch(printed) is None


@pytest.mark.parametrize(
    ("compressed", "names"),
    [
        ("", []),
        ("(null)", []),
        ("n1", ["n1"]),
        ("gpu[01-03,07]", ["gpu01", "gpu02", "gpu03", "gpu07"]),
        ("a[1-2]b[3-4]", ["a1b3", "a1b4", "a2b3", "a2b4"]),
        ("a1,b[08-11],c-d", ["a1", "b08", "b09", "b10", "b11", "c-d"]),
        ("r[1-2]-ib", ["r1-ib", "r2-ib"]),
    ],
)
def test_node_lists(compressed, names):
    assert list(text.node_names(compressed)) == names


@pytest.mark.parametrize("broken", ["n[", "n]", "n[]", "n[a]", "n[3-1]", "n[1-2", "n[1-9]x[1-99999][1-9]"])
def test_broken_node_lists(broken):
    with pytest.raises(text.Unparsable):
        text.node_names(broken)


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("(null)", ("", 0)),
        ("N/A", ("", 0)),
        ("gpu:4", ("", 4)),
        ("gpu", ("", 1)),
        ("gpu:a100", ("a100", 1)),
        ("gpu:a100:4(S:0-1)", ("a100", 4)),
        ("gpu:a100:2(IDX:0,2)", ("a100", 2)),
        ("gpu:a100:0(IDX:N/A)", ("a100", 0)),
        ("gpu:a100:2(IDX:0,3),gpu:h100:1(IDX:1),shard:8", ("", 3)),
        ("gres/gpu:2", ("", 2)),
        ("gres:gpu:a100:2", ("a100", 2)),
        ("billing=8,cpu=8,gres/gpu=2,gres/gpu:a100=2", ("a100", 2)),
        ("gres/gpu:a100=2", ("a100", 2)),
        ("gpumem:3,nvgpu:1", ("", 0)),
    ],
)
def test_gpus_in_all_spellings(printed, found):
    assert text.gpus(printed) == found


def test_boot_time():
    assert (
        text.boot_time("BatchStartTimeout = 10 sec\nBOOT_TIME               = 1795516446\nX = 1\n")
        == 1795516446
    )
    with pytest.raises(text.Unparsable):
        text.boot_time("BOOT_TIME = 2026-11-24T10:00:00\n")


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("Configuration data as of 1795516446\nBOOT_TIME = 5\n", 1795516446),
        ("Configuration data as of 2026-11-24T10:00:00\n", 0),
        ("BOOT_TIME = 5\n", 0),
        ("x Configuration data as of 1795516446\n", 0),
    ],
)
def test_the_controllers_time_is_taken_where_it_is_told(printed, found):
    assert text.controller_time(printed) == found


@pytest.mark.parametrize(("printed", "job_id"), [("12\n", 12), ("12;hpc\n", 12)])
def test_submitted_id(printed, job_id):
    assert text.submitted_id(printed) == job_id


@pytest.mark.parametrize("printed", ["", "0", "Submitted batch job 12", "12\n13", "-1", "12;a b", "١٢"])
def test_no_submitted_id(printed):
    with pytest.raises(text.Unparsable):
        text.submitted_id(printed)


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    "stderr",
    [
        "sbatch: error: invalid partition specified: nope\n" + FAILED + "Invalid partition name specified\n",
        FAILED + "Requested node configuration is not available\n",
        FAILED + "Invalid account or account/partition combination specified\n",
        FAILED + "Requested time limit is invalid (missing or exceeds some limit)\n",
        FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
        "/usr/bin/sbatch: unrecognized option '--bogus'\nTry \"sbatch --help\" for more information\n",
        "sbatch: error: Unable to open file /nowhere\n",
        "sbatch: error: Invalid generic resource (gres) specification\n",
    ],
)
def test_a_refusal_is_known_by_slurms_own_words(stderr):
    assert text.provably_refused(stderr)


@pytest.mark.parametrize(
    "stderr",
    [
        "",
        FAILED + "Socket timed out on send/recv operation\n",
        FAILED + "Unable to contact slurm controller (connect failure)\n",
        FAILED + "Zero Bytes were transmitted or received\n",
        FAILED + "Unspecified error\n",
        FAILED + "Unexpected message received\n",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.\n"
        + FAILED
        + "Invalid partition name specified\n",
        "sbatch: error: Invalid generic resource (gres) specification\n" + FAILED + "Unspecified error\n",
        "Invalid partition name specified\n",
    ],
)
def test_all_else_is_unknown(stderr):
    assert not text.provably_refused(stderr)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("sbatch: error: invalid partition specified: nope\nmore\n", "invalid partition specified: nope"),
        ("/usr/bin/sbatch: unrecognized option '--bogus'\n", "unrecognized option '--bogus'"),
        ("slurm_load_partitions: Unable to contact slurm controller\n", "Unable to contact slurm controller"),
        ("\n  \nlate\x1b[2J\n", r"late\x1b[2J"),
        ("", ""),
    ],
)
def test_the_line_shown_to_the_operator(said, line):
    assert text.first_line(said) == line
