"""Forecasts of series whose future is known."""

import random
import re
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.forecast import Forecast, day_profile, days_until, forecast
from tests.source_code import read

WEEKLY = [100, 100, 100, 100, 100, 20, 10]


def test_a_week_that_repeats_is_forecast_exactly():
    history = WEEKLY * 8
    assert day_profile(history) == WEEKLY
    assert forecast(history, 7) == Forecast(530, 530, 530)
    assert forecast(history[:-2], 2) == Forecast(30, 30, 30)  # the weekend comes next
    assert forecast(history, 5.5) == Forecast(510, 510, 510)
    assert forecast(history, 31) == Forecast(4 * 530 + 300, 4 * 530 + 300, 4 * 530 + 300)


def test_a_step_is_followed_in_four_weeks():
    assert forecast([0] * 28 + [100] * 28, 7).expected == 700


@pytest.mark.parametrize("days", [0, -1.5])
def test_of_no_time_nothing(days):
    assert forecast(WEEKLY * 3, days) == Forecast(0, 0, 0)


def test_with_little_history_there_is_a_mean_and_no_interval():
    assert forecast([], 3) == Forecast(0, None, None)
    assert forecast([10, 20, 30], 4) == Forecast(80, None, None)


def test_with_two_weeks_there_is_an_interval_of_single_days():
    history = [100, 120, 80, 110, 90, 20, 10, 110, 100, 95, 105, 100, 25, 15]
    found = forecast(history, 3)
    assert found.low < found.expected < found.high
    wider = forecast(history, 3, 0.95)
    assert wider.low <= found.low
    assert wider.high > found.high


def noisy(seed, weeks):
    """A weekly shape with noise of a fifth, as a seeded generator draws it."""
    draw = random.Random(seed)
    return [max(round(value * draw.gauss(1, 0.2)), 0) for value in WEEKLY * weeks]


@pytest.mark.parametrize("days", [3, 10, 14])
def test_error_and_coverage_on_held_out_series(days):
    """The figures of docs/reports.md: the last days held out of 200 series of 14 weeks."""
    errors, of_means, held = [], [], 0
    for seed in range(200):
        series = [1000 * value for value in noisy(seed, 14)]
        history, future = series[:-days], sum(series[-days:])
        found = forecast(history, days, 0.8)
        errors.append(abs(found.expected - future) / future)
        of_means.append(abs(sum(history) / len(history) * days - future) / future)
        held += found.low <= future <= found.high
    error, of_mean = fmean(errors), fmean(of_means)
    row = f"{error:.0%} | {of_mean:.0%} | {held / 200:.0%} |".replace("%", " %")
    assert re.search(rf"^\| {days}\b[^|]*\| {re.escape(row)}$", read("docs/reports.md"), re.M)
    assert error < 1.3 * of_mean  # the noise of the days to come alone makes 0.05 of two weeks
    assert 0.7 <= held / 200 <= 0.97


def test_when_an_amount_is_reached():
    history = WEEKLY * 4
    assert days_until(history, 250, 31) == 2.5
    assert days_until(history, 515, 31) == 5.75
    assert days_until(history, 530 + 100, 31) == 8
    assert days_until(history, 0, 31) == 0
    assert days_until(history, 10_000, 31) is None
    assert days_until([0] * 30, 1, 400) is None


def test_of_today_only_what_is_left_counts():
    history = WEEKLY * 4
    assert forecast(history, 2, elapsed=0.25).expected == 175
    assert days_until(history, 100, 31, elapsed=0.5) == 1.5
    assert days_until(history, 50, 31, elapsed=0.5) == 1
    assert days_until(history, 0, 31, elapsed=0.5) == 0.5


@given(st.lists(st.integers(0, 10**12), max_size=60), st.floats(0.1, 60), st.floats(0.5, 0.99))
def test_intervals_are_in_order(history, days, coverage):
    found = forecast(history, days, coverage)
    assert found.expected >= 0
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.high
