"""What will be spent: a profile of weekdays, with an interval from the errors it has made.

Each day to come is forecast as the mean of the same weekdays of the last weeks, a seasonal naive
forecast averaged over a few seasons (Hyndman, Athanasopoulos, "Forecasting: Principles and
Practice", 3rd ed., 5.2). The interval of a sum of days is the wider of two (5.5, 5.10): what such
sums were off by when forecast from earlier days of the same history, a rolling origin; and the
spread of single days' errors times the square root of their number, as if these were independent.
The first alone is too narrow, because its sums overlap. Pure: values are integers of any unit.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

WEEK = 7
WEEKS_AVERAGED = 4
HISTORY_MIN = 7  # days: with fewer, nothing is said
ORIGINS_MIN = 20  # sums of the past that an interval can be read from


class Forecast(NamedTuple):
    """Of a sum of days, in the history's unit. None: too little history."""

    expected: int
    low: int | None
    high: int | None


def day_profile(history: Sequence[int]) -> list[float]:
    """What each of the next seven days is expected to spend, the first of them first."""
    days = len(history)
    profile = []
    for ahead in range(WEEK):
        first = days + ahead - WEEK
        same = [history[day] for day in range(first, -1, -WEEK) if day < days][:WEEKS_AVERAGED]
        some = same or history
        profile.append(sum(some) / len(some) if some else 0.0)
    return profile


def forecast(
    history: Sequence[int], days: float, coverage: float = 0.8, elapsed: float = 0.0
) -> Forecast:
    """The sum of the next `days`, less the part of the first that has `elapsed`; `coverage` is how
    often the interval is to hold it. An interval never begins below zero."""
    if days <= elapsed:
        return Forecast(0, 0, 0)
    expected = expected_sum(day_profile(history), days, elapsed)
    if len(history) < HISTORY_MIN:
        return Forecast(round(expected), None, None)
    low, high = _as_if_independent(history, days - elapsed, coverage)
    errors = _past_errors(history, max(round(days - elapsed), 1))
    if len(errors) >= ORIGINS_MIN:
        below, above = (_quantile(errors, q) for q in _tails(coverage))
        low, high = min(low, below), max(high, above)
    return Forecast(round(expected), max(round(expected + low), 0), max(round(expected + high), 0))


def expected_sum(profile: Sequence[float], days: float, elapsed: float = 0.0) -> float:
    whole = int(days)
    weeks, rest = divmod(whole, WEEK)
    total = weeks * sum(profile) + sum(profile[:rest])
    return total + (days - whole) * profile[whole % WEEK] - elapsed * profile[0]


def days_until(
    history: Sequence[int], amount: int, days_max: int, elapsed: float = 0.0
) -> float | None:
    """How many days after the first of them began the expected sum from now on reaches an amount;
    None: not in `days_max`."""
    if amount <= 0:
        return elapsed
    profile = day_profile(history)
    total = -elapsed * profile[0]
    for day in range(days_max):
        expected = profile[day % WEEK]
        if expected > 0 and total + expected >= amount:
            return day + (amount - total) / expected
        total += expected
    return None


def _tails(coverage: float) -> tuple[float, float]:
    return (1 - coverage) / 2, (1 + coverage) / 2


def _past_errors(history: Sequence[int], days: int) -> list[float]:
    """What sums of so many days were off by, forecast from each earlier day with two weeks of
    history before it: actual less expected."""
    errors = []
    for origin in range(2 * WEEK, len(history) - days + 1):
        expected = expected_sum(day_profile(history[:origin]), days)
        errors.append(sum(history[origin : origin + days]) - expected)
    return errors


def _as_if_independent(history: Sequence[int], days: float, coverage: float) -> tuple[float, float]:
    errors = _past_errors(history, 1)
    if len(errors) < WEEK:  # too little for a profile: days as they differ from their mean
        mean = sum(history) / len(history)
        errors = [value - mean for value in history]
    spread = math.sqrt(sum(error**2 for error in errors) / len(errors) * days)
    low, high = (NormalDist().inv_cdf(q) for q in _tails(coverage))
    return low * spread, high * spread


def _quantile(values: Sequence[float], q: float) -> float:
    """Between the values beside it, linearly (Hyndman, Fan 1996, type 7)."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
