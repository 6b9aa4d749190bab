"""The linear temperature: values by hand, and the values that are refused."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.schedule import LinearTemperature


def test_defaults_over_four_steps():
    assert [LinearTemperature().at(step, 4) for step in (4, 3, 2, 1)] == pytest.approx([0.8, 0.7, 0.6, 0.5])


def test_last_of_48_steps_stands_one_step_above_t_min():
    schedule = LinearTemperature(t_min=0.4, t_max=0.8)
    assert schedule.at(48, 48) == pytest.approx(0.8)
    assert schedule.at(1, 48) == pytest.approx(0.4 + 0.4 / 48)


def test_a_single_step_has_t_max():
    assert LinearTemperature(t_min=0.1, t_max=0.9).at(1, 1) == pytest.approx(0.9)


@given(t_min=st.floats(0.01, 5), more=st.floats(0, 5), steps=st.integers(1, 200))
def test_falls_evenly_and_stays_within_bounds(t_min, more, steps):
    schedule = LinearTemperature(t_min=t_min, t_max=t_min + more)
    values = [schedule.at(step, steps) for step in range(steps, 0, -1)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(values))
    assert t_min <= values[-1] <= values[0] <= t_min + more + 1e-12
    assert values[-1] - t_min == pytest.approx(more / steps, abs=1e-9)


def test_equal_ends_are_a_constant():
    assert {LinearTemperature(t_min=0.5, t_max=0.5).at(step, 8) for step in range(1, 9)} == {0.5}


@pytest.mark.parametrize(
    ("t_min", "t_max"),
    [(0.0, 0.8), (-0.1, 0.8), (0.8, 0.4), (0.4, math.inf), (math.inf, math.inf), (math.nan, 0.8), (0.4, math.nan)],
)
def test_bad_values(t_min, t_max):
    with pytest.raises(ValueError, match=r"t_min .* t_max .* 0 < t_min <= t_max"):
        LinearTemperature(t_min=t_min, t_max=t_max)
