"""Geometry of the charts."""

import pytest

from pricing.money import NANO_PER_USD as USD
from proxy.control.dashboard.charts import HEIGHT, OTHERS, ceiling, stacked


def chart(groups: dict[str, list[int]], periods: int = 2):
    return stacked([f"p{n}" for n in range(periods)], groups, lambda nano: f"{nano} n")


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, USD), (-5, USD), (1, 1), (3, 4), (41, 50), (51, 100), (100, 100), (2 * USD + 1, 4 * USD)],
)
def test_the_top_is_the_next_round_amount(value, top):
    assert ceiling(value) == top


def test_columns_stand_on_each_other_and_reach_their_share_of_the_top():
    made = chart({"a": [30, 10], "b": [10, 0]})
    assert made.ticks == [40, 30, 20, 10, 0]
    first, second = made.bars[:2]
    assert (first.height, first.y) == (HEIGHT * 0.75, HEIGHT * 0.25)
    assert (second.height, second.y) == (HEIGHT * 0.25, 0)
    assert first.title == "p0, a: 30 n"
    assert len(made.bars) == 3  # nothing is drawn of nothing
    assert [(each.name, each.nano) for each in made.legend] == [("a", 40), ("b", 10)]


def test_many_groups_become_a_few_and_others_and_no_nano_is_lost():
    groups = {f"g{n}": [n, 2 * n] for n in range(20)}
    made = chart(groups)
    assert made.legend[-1].name == OTHERS
    assert len(made.legend) == 8
    assert sum(each.nano for each in made.legend) == sum(map(sum, groups.values()))


def test_what_is_below_zero_is_a_figure_and_no_column():
    made = chart({"a": [-5, 5]})
    assert len(made.bars) == 1
    assert made.rows[0] == ("p0", [-5])


def test_of_no_periods_there_is_an_empty_chart():
    made = chart({}, periods=0)
    assert (made.bars, made.labels, made.width) == ([], [], 1)
