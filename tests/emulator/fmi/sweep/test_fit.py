"""What is said of the growth of the run time is what the data support."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.fmi.sweep.fit import fit_world_size, in_words
from emulator.fmi.sweep.published import HELLO


@given(st.floats(0.1, 20), st.floats(-2, 2), st.lists(st.integers(1, 1000), min_size=4, max_size=12, unique=True))
def test_times_on_the_line_are_fitted_exactly(constant: float, slope: float, sizes: list[int]) -> None:
    fit = fit_world_size(sizes, [constant + slope * math.log2(size) for size in sizes])
    assert fit is not None
    assert fit.constant == pytest.approx(constant, abs=1e-6)
    assert fit.slope == pytest.approx(slope, abs=1e-6)
    assert max(map(abs, fit.residuals)) < 1e-6
    assert sum(fit.mean_residuals) == pytest.approx(0, abs=1e-6)


def test_growth_beyond_the_scatter_is_supported_with_its_interval() -> None:
    sizes = [2, 2, 4, 4, 8, 8, 16, 16]
    fit = fit_world_size(sizes, [3 + 0.5 * math.log2(size) + 0.1 * (-1) ** index for index, size in enumerate(sizes)])
    assert fit is not None
    assert fit.grows
    assert fit.slope_error == pytest.approx(0.1 / math.sqrt(10) * math.sqrt(8 / 6), rel=0.01)
    text = in_words(fit)
    assert text.startswith("The data support growth: 0.4")
    assert "x log2 N" in text
    assert "a constant" in text


def test_scatter_without_growth_is_not_called_growth() -> None:
    fit = fit_world_size([2, 4, 8, 16], [3.1, 2.9, 3.1, 2.9])
    assert fit is not None
    assert not fit.grows
    assert in_words(fit).startswith(
        "The data do not distinguish growth with log2 N from a constant time: a growth of up"
    )


def test_a_falling_time_is_neither() -> None:
    fit = fit_world_size([1, 2, 4, 8, 16], [16, 12.1, 7.9, 4, 0.1])
    assert "falls with the world size" in in_words(fit)


def test_two_world_sizes_say_nothing() -> None:
    assert fit_world_size([2, 2, 4], [1, 1, 2]) is None
    assert "say nothing about growth" in in_words(None)


def test_the_published_times_of_one_team_do_not_show_logarithmic_growth() -> None:
    """Four points: 4.8, 4.6, 5.0 and 6.9 s at 2, 4, 20 and 50 ranks."""
    runs = [run for run in HELLO if "Team 4" in run.source]
    fit = fit_world_size([run.world_size or 0 for run in runs], [run.seconds for run in runs])
    assert fit is not None
    assert fit.slope == pytest.approx(0.39, abs=0.05)
    assert not fit.grows
