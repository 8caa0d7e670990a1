import contextlib
import math

from hypothesis import given
from hypothesis import strategies as st

from saia_engine.edge import durations, sizes

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.text("0123456789:-.smhd ")
)


@given(st.integers(0, 3650 * 86400))
def test_a_spelt_duration_reads_back(seconds: int) -> None:
    assert durations.parse(durations.spell(seconds)) == seconds


@given(st.integers(1, 365 * 86400))
def test_slurms_time_reads_back_as_the_next_whole_minute(seconds: int) -> None:
    assert durations.parse(durations.slurm_time(seconds)) == math.ceil(seconds / 60) * 60


@given(ANYTHING)
def test_anything_else_is_a_finite_number_or_a_value_error(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= durations.parse(value) <= durations.LONGEST_S
    with contextlib.suppress(ValueError):
        assert 0 <= sizes.parse_bytes(value) <= sizes.LARGEST_BYTES


@given(st.floats())
def test_any_number_can_be_shown(seconds: float) -> None:
    assert durations.show(seconds)
