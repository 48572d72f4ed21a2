from pathlib import Path

from pricing.diff import Change, TableDiff, diff_tables
from tests.factories import a_table, an_entry

RANGES = [{"range": [0, 9], "input_cost_per_token": "1"}]
DEARER = [{"range": [0, 9], "input_cost_per_token": "2"}]


def test_what_changed_between_two_tables(tmp_path: Path) -> None:
    old = a_table(
        tmp_path,
        {
            ("p", "same"): an_entry(),
            ("p", "gone"): an_entry(),
            ("p", "changed"): an_entry(tiered_pricing=RANGES, cache_read_input_token_cost="1"),
        },
        "old",
    )
    new = a_table(
        tmp_path,
        {
            ("p", "same"): an_entry(),
            ("q", "new"): an_entry(),
            ("p", "changed"): an_entry(tiered_pricing=DEARER, supports_reasoning=True),
        },
        "new",
    )
    assert diff_tables(old, new) == TableDiff(
        added=["q/new"],
        removed=["p/gone"],
        changed=[
            Change("p/changed", "cache_read_input_token_cost", "1", None),
            Change("p/changed", "supports_reasoning", None, True),
            Change("p/changed", "tiered_pricing.0.input_cost_per_token", "1", "2"),
        ],
    )
    assert diff_tables(new, new) == TableDiff([], [], [])
