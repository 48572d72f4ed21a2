"""What control does now and then, on parts that only have what a chore uses."""

import logging
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from proxy.control.chores import make_partitions
from tests.factories import NOW_MS


class FakeTransactions:
    def __init__(self, dialect, result):
        self.dialect = dialect
        self.result = result
        self.runs = 0

    async def run(self, work):
        self.runs += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("dialect", "result", "runs", "said"),
    [
        ("sqlite", None, 0, []),
        ("postgresql", [], 1, []),
        ("postgresql", ["p_2026_05", "p_2026_06"], 1, ["p_2026_05 made", "p_2026_06 made"]),
        ("postgresql", OperationalError("x", None, OSError("locked")), 1, ["cannot be made"]),
    ],
)
async def test_partitions_are_made_where_there_are_any(caplog, dialect, result, runs, said):
    caplog.set_level(logging.INFO)
    transactions = FakeTransactions(dialect, result)
    await make_partitions(SimpleNamespace(transactions=transactions), NOW_MS)
    assert transactions.runs == runs
    assert len(caplog.messages) == len(said)
    assert all(text in message for text, message in zip(said, caplog.messages, strict=True))
