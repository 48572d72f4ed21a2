"""What changed between two price tables."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pricing.table import PriceTable


class Change(NamedTuple):
    """One key of one model's entry; None: the key is not there."""

    model: str  # "provider/model"
    key: str  # nested ones with dots: "tiered_pricing.1.input_cost_per_token"
    old: Any
    new: Any


class TableDiff(NamedTuple):
    """Models as "provider/model", in the order of the tables."""

    added: list[str]
    removed: list[str]
    changed: list[Change]


def diff_tables(old: PriceTable, new: PriceTable) -> TableDiff:
    """Compare every entry of two tables. Raises TableError for a malformed one."""
    before, after = set(old.keys()), set(new.keys())
    changed: list[Change] = []
    for key in sorted(before & after):
        provider, _, model = key.partition("/")
        changed += _changes(key, old.entry(provider, model), new.entry(provider, model))
    return TableDiff(sorted(after - before), sorted(before - after), changed)


def _changes(model: str, old: Any, new: Any) -> Iterator[Change]:
    if old == new:
        return
    was, now = dict(_leaves("", old)), dict(_leaves("", new))
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            yield Change(model, key, was.get(key), now.get(key))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = dict(enumerate(value)).items()
    else:
        yield path, value
        return
    for name, part in parts:
        yield from _leaves(f"{path}.{name}" if path else str(name), part)
