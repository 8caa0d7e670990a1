import pytest

from saia_engine.edge import durations, sizes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("0s", 0),
        (" 5s ", 5),
        # as sbatch(1) lists them for --time
        ("15", 900),
        ("5:30", 330),
        ("90:00", 5400),
        ("24:00:00", 86400),
        ("1:02:03", 3723),
        ("1-02", 93600),
        ("1-02:03", 93780),
        ("1-02:03:04", 93784),
    ],
)
def test_durations_with_units_and_as_slurm_writes_them(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (15, 'write "15s", "15m" or "15h"'),
        (1.5, "without a unit"),
        (True, "not a duration"),
        (None, "not a duration"),
        (["1m"], "not a duration"),
        ("", "not a duration"),
        ("soon", "not a duration"),
        ("5 minutes", "not a duration"),
        ("-5s", "not a duration"),
        ("٣s", "not a duration"),
        ("30m1h", "from the largest to the smallest"),
        ("5m5m", "each once"),
        ("1:60", "59"),
        ("1-24", "23"),
        ("UNLIMITED", "must be finite"),
        ("99999d", "longer than ten years"),
        ("1e5s", "not a duration"),
    ],
)
def test_what_is_no_duration_gets_a_sentence(value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        durations.parse(value)


@pytest.mark.parametrize(
    ("seconds", "shown", "spelt"),
    [
        (0, "0s", "0s"),
        (0.25, "250ms", "250ms"),
        (0.9996, "1s", "1s"),
        (4.5, "4.5s", "4.5s"),
        (45, "45s", "45s"),
        (59.97, "1m", "1m"),
        (250, "4m 10s", "4m 10s"),
        (600, "10m", "10m"),
        (7500, "2h 05m", "2h 05m"),
        (93784, "1d 02h", "1d 02h 03m 04s"),
        (-250, "-4m 10s", "-4m 10s"),
        (float("inf"), "unknown", "unknown"),
        (float("nan"), "unknown", "unknown"),
    ],
)
def test_durations_for_people(seconds: float, shown: str, spelt: str) -> None:
    assert durations.show(seconds) == shown
    assert durations.spell(seconds) == spelt


def test_slurm_gets_whole_minutes_rounded_up() -> None:
    assert durations.slurm_time(1) == "0-00:01:00"
    assert durations.slurm_time(60) == "0-00:01:00"
    assert durations.slurm_time(61) == "0-00:02:00"
    assert durations.slurm_time(93784) == "1-02:04:00"


def test_sizes() -> None:
    assert sizes.parse_mib("64GiB") == sizes.parse_mib("64G") == sizes.parse_mib("65536") == 65536
    assert sizes.parse_mib("512MiB") == 512
    assert sizes.parse_mib("1.5GiB") == 1536
    assert sizes.parse_mib("1KiB") == 1
    assert sizes.parse_bytes("50MiB") == 50 * 1024 * 1024
    assert [sizes.show_mib(mib) for mib in (512, 1536, 65536, 2 * 1024**2)] == [
        "512MiB",
        "1.5GiB",
        "64GiB",
        "2TiB",
    ]


@pytest.mark.parametrize("value", [64, 1.5, True, None, "", "64GB", "lots", "-1G", "9" * 13, "999999TiB"])
def test_what_is_no_size_gets_a_sentence(value: object) -> None:
    with pytest.raises(ValueError, match=r"unit|size|larger"):
        sizes.parse_mib(value)
