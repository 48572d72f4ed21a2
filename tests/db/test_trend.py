"""Lines through series whose lines are known."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.trend import Trend, trend


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Trend(0, 0, "")),
        ([7], Trend(7, 0, "")),
        ([1, 3], Trend(2, 2, "")),
        ([5, 5, 5, 5], Trend(5, 0, "flat")),
        ([10, 20, 30, 40, 50], Trend(30, 10, "rising")),
        ([50, 40, 30, 20, 10], Trend(30, -10, "falling")),
        ([0, 100, 0, 100, 0, 100], Trend(50, 9, "flat")),  # 100 * 9 / 105
    ],
)
def test_known_lines(values, expected):
    assert trend(values) == expected


def test_noise_is_flat_and_a_slope_within_noise_is_found():
    noise = [3, -1, 4, -1, -5, 2, -6, 5, -3, 2]
    assert trend(noise).direction == "flat"
    assert trend([100 * n + value for n, value in enumerate(noise)]).direction == "rising"


@given(st.lists(st.integers(-(10**15), 10**15), min_size=2, max_size=40))
def test_the_slope_is_that_of_the_normal_equations(values):
    n = len(values)
    mean_x, mean_y = Fraction(n - 1, 2), Fraction(sum(values), n)
    top = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(values))
    slope = top / sum((x - mean_x) ** 2 for x in range(n))
    assert trend(values).slope == round(slope)
