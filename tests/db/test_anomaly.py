"""Hours whose being out of line is known, and how often the rule is wrong and right."""

import random
import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.anomaly import Anomaly, find_anomaly
from tests.source_code import read

USD = 10**9
WEEK_H = 168


@pytest.mark.parametrize(
    ("earlier", "spent", "found"),
    [
        ([100] * 8, 300, Anomaly(300, 100, 5.0)),  # the unit is 0.4 of the median
        ([100] * 8, 299, None),
        ([100, 900, 100, 100, 900, 100, 100, 100], 300, Anomaly(300, 100, 5.0)),  # odd weeks
        ([80, 120] * 4, 300, Anomaly(300, 100, 5.0)),  # deviates by 20: a unit of 30
        ([0, 200] * 4, 800, None),  # by 100: a unit of 148
        ([0, 200] * 4, 842, Anomaly(842, 100, 5.0)),
        ([0] * 6 + [100, 100], 199, None),  # mostly idle
        ([0] * 6 + [100, 100], 200, Anomaly(200, 0, 5.0)),
        ([0] * 8, 19, None),  # below the minimum
        ([0] * 8, 20, Anomaly(20, 0, 5.0)),
        ([100] * 3, 10_000, None),  # three weeks are too few
        ([], 10_000, None),
        ([100] * 8, 50, None),  # a fall is none
    ],
)
def test_hours_whose_answer_is_known(earlier, spent, found):
    assert find_anomaly(earlier, spent, minimum=20) == found


@given(st.lists(st.integers(0, 10**12), max_size=12), st.integers(0, 10**13))
def test_nothing_below_the_minimum_and_always_above_the_usual(earlier, spent):
    found = find_anomaly(earlier, spent, minimum=USD)
    if found is not None:
        assert found.score >= 5
        assert found.spent - found.usual >= USD - 1


# --- on weeks the parameters were not chosen with -------------------------------------------

SHAPE = (
    0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.4, 0.8, 1.5, 2.0, 2.2, 2.2,
    1.8, 2.0, 2.2, 2.2, 2.0, 1.6, 1.0, 0.7, 0.5, 0.4, 0.3, 0.3,
)  # fmt: skip
LEVEL = 100 * USD
WEEKS = 8
SEEDS = range(2000, 2010)
JUMPS = (3, 5, 10)


def hour_of(draw, hour, noise, idle):
    weekend = 0.3 if hour // 24 % 7 >= 5 else 1
    value = LEVEL * SHAPE[hour % 24] * weekend * draw.lognormvariate(0, noise)
    return 0 if draw.random() < idle else int(value)


@cache
def rates(noise, idle):
    """Share of false alarms, and of jumps that are told."""
    hours = alarms = spending = 0
    told = dict.fromkeys(JUMPS, 0)
    for seed in SEEDS:
        draw = random.Random(seed)
        weeks = [hour_of(draw, hour, noise, idle) for hour in range(WEEK_H * (WEEKS + 1))]
        for hour in range(WEEK_H):
            *earlier, now = weeks[hour::WEEK_H]
            hours += 1
            alarms += find_anomaly(earlier, now, minimum=5 * USD) is not None
            spending += now > 0
            for jump in JUMPS if now else ():
                told[jump] += find_anomaly(earlier, now * jump, minimum=5 * USD) is not None
    return alarms / hours, *(count / spending for count in told.values())


@pytest.mark.parametrize(("noise", "idle"), [(0.2, 0), (0.4, 0), (0.4, 0.3)])
def test_the_document_has_the_rates(noise, idle):
    alarms, *told = rates(noise, idle)
    row = (
        f"| {noise:g} | {idle:.0%} | {alarms:.2%} | " + " | ".join(f"{x:.0%}" for x in told) + " |"
    )
    row = re.sub(r"(\d)%", r"\1 %", row)
    assert row in read("docs/alerts.md")


def test_false_alarms_are_rare_where_weeks_repeat():
    assert rates(0.2, 0)[0] == 0
    assert rates(0.2, 0)[2] > 0.95
    assert rates(0.4, 0)[0] < 0.01
