"""Days that are over get daily rollups; what arrives later is added to them."""

import asyncio

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from db.engine import open_engine
from db.ledger_rollups import REST_MS, fold_day, folded_until
from db.models import CostAnalytics, CostDay, FoldedDay
from db.transactions import is_lock_timeout
from db.verify import verify
from tests.factories import (
    NOW_MS,
    a_row,
    a_stored_key,
    a_stored_price,
    insert_rows,
    roll_up,
)

DAY_MS = 86_400_000
DAY = NOW_MS // DAY_MS
OVER_MS = NOW_MS + DAY_MS + REST_MS  # the day of NOW_MS is


@pytest.fixture
async def add(write):
    """Calls at such times, one by one."""
    key = await write(a_stored_key)
    price_id = await write(a_stored_price)

    def stored(connection, *times):
        for at_ms in times:
            row = a_row(key, at_ms=at_ms, price_id=price_id)
            insert_rows(connection, row)
            roll_up(connection, row)

    async def add(*times):
        await write(stored, *times)

    return add


async def days_of(engine):
    query = select(CostDay.day, CostDay.calls, CostDay.cost_nano).order_by(CostDay.day)
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def test_a_day_is_folded_once_it_is_over(engine, write, add):
    await add(NOW_MS, NOW_MS + 5_000_000, NOW_MS + DAY_MS)
    assert await write(fold_day, OVER_MS - 1) is None
    assert await write(fold_day, OVER_MS) == DAY
    assert await write(fold_day, OVER_MS) is None
    assert await days_of(engine) == [(DAY, 2, 200_000)]
    assert await write(folded_until) == DAY + 1
    assert await verify(engine) == []


async def test_what_arrives_later_grows_its_day(engine, write, add):
    await add(NOW_MS)
    await write(fold_day, OVER_MS)
    before = NOW_MS - 30 * DAY_MS
    await add(NOW_MS + 1, before, OVER_MS)
    assert await days_of(engine) == [(DAY - 30, 1, 100_000), (DAY, 2, 200_000)]
    assert await verify(engine) == []


async def test_days_without_calls_are_passed_over(engine, write, add):
    await add(NOW_MS - 40 * DAY_MS, NOW_MS)
    assert [await write(fold_day, OVER_MS) for _ in range(3)] == [DAY - 40, DAY, None]
    await add(NOW_MS - 3 * DAY_MS)
    assert [day for day, _, _ in await days_of(engine)] == [DAY - 40, DAY - 3, DAY]
    assert await verify(engine) == []


@pytest.mark.parametrize(
    "damage",
    [
        update(CostDay).values(cost_nano=CostDay.cost_nano + 1),
        delete(CostDay),
        delete(FoldedDay),
        insert(FoldedDay).values(day=DAY + 1, folded_at_ms=0),
        update(CostDay).values(model="another"),
    ],
)
async def test_days_are_verified(engine, write, add, damage):
    await add(NOW_MS, NOW_MS + DAY_MS)
    await write(fold_day, OVER_MS)
    await write(lambda connection: connection.execute(damage))
    findings = await verify(engine)
    assert {finding.invariant for finding in findings} == {"rollups"}
    assert all("unix day" in finding.subject for finding in findings)


# --- two hosts -----------------------------------------------------------------------------


@pytest.fixture
def other_url(url):
    if not url.startswith("postgresql"):
        pytest.skip("SQLite has one writer at a time")
    return url


async def test_a_fold_and_a_flush_never_miss_each_other(other_url, engine, write, add):
    """A host has written hours and not committed; another folds the day; a third comes then."""
    await add(NOW_MS)
    other = open_engine(other_url)
    key, price_id = await write(a_stored_key), await write(a_stored_price, "other")

    def flush(connection):
        row = a_row(key, at_ms=NOW_MS + 7, price_id=price_id)
        insert_rows(connection, row)
        roll_up(connection, row)

    async with other.begin() as early:
        await early.run_sync(flush)
        folding = asyncio.create_task(write(fold_day, OVER_MS))
        await waits(engine)
        late = asyncio.create_task(write(flush))
        await waits(engine, 2)
    assert await folding == DAY
    await late
    await other.dispose()
    async with engine.connect() as connection:
        hours = select(func.sum(CostAnalytics.calls))
        assert (await connection.execute(hours)).scalar_one() == 3
    assert sum(calls for _, calls, _ in await days_of(engine)) == 3
    assert await verify(engine) == []


async def waits(engine, wanted=1):
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    found = 0
    while found < wanted:
        async with engine.connect() as connection:
            found = (await connection.execute(query)).scalar_one()


@pytest.mark.usefixtures("other_url")
async def test_nobody_queues_behind_a_fold_for_long(engine, write, add, monkeypatch):
    monkeypatch.setattr("db.rollup_lock.LOCK_TIMEOUT", "SET LOCAL lock_timeout = '10ms'")
    await add(NOW_MS)
    async with engine.begin() as connection:
        await connection.execute(update(CostAnalytics).values(calls=CostAnalytics.calls))
        with pytest.raises(DBAPIError) as caught:
            await write(fold_day, OVER_MS)
    assert is_lock_timeout(caught.value)
