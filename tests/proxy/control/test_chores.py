"""What control does now and then: days that are over are folded, partitions made."""

import logging
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from db.ledger_rollups import folded_until
from db.threads import Threads
from proxy.control import chores
from proxy.control.chores import DAYS_S, fold_one_day, keep_house, make_partitions
from proxy.control.clock import Clock, Due
from proxy.control.opening import open_ledger
from tests.factories import NOW_MS, a_row, a_stored_key, insert_rows, roll_up

DAY_MS = 86_400_000
DAY = NOW_MS // DAY_MS
LATER_MS = NOW_MS + 10 * DAY_MS


class Idle:
    async def housekeeping(self, _now_ms):
        pass


@pytest.fixture
async def parts(tmp_path):
    threads = Threads()
    transactions = await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db", threads)
    yield SimpleNamespace(transactions=transactions, objects=Idle(), customers=Idle())
    await transactions.close()
    threads.close()


async def test_days_are_folded_one_in_a_turn_and_then_looked_for_each_minute(parts):
    now_s = 0.0
    due = Due(Clock(now_ms=lambda: LATER_MS, monotonic=lambda: now_s))

    def call(connection, *days):
        key = a_stored_key(connection)
        rows = [a_row(key, at_ms=NOW_MS + day * DAY_MS) for day in days]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)

    async def turn():
        await keep_house(parts, due, LATER_MS)
        return await parts.transactions.run(folded_until) - DAY

    await parts.transactions.run(lambda connection: call(connection, 0, 1, 2))
    assert [await turn() for _ in range(4)] == [1, 2, 3, 3]
    await parts.transactions.run(lambda connection: call(connection, 5, 10))
    assert await turn() == 3
    now_s = DAYS_S
    assert [await turn() for _ in range(2)] == [6, 6]


class Refused(Exception):
    def __init__(self, sqlstate):
        self.sqlstate = sqlstate


async def test_a_lock_that_cannot_be_had_is_told_and_harms_nobody(parts, monkeypatch, caplog):
    def fold(state):
        def fold(_connection, _now_ms):
            raise DBAPIError("LOCK", {}, Refused(state))

        monkeypatch.setattr(chores, "fold_day", fold)

    fold("55P03")
    with caplog.at_level(logging.WARNING):
        assert not await fold_one_day(parts, LATER_MS)
    assert "cannot be made" in caplog.text
    fold("53100")
    with pytest.raises(DBAPIError):
        await fold_one_day(parts, LATER_MS)


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
