"""Calls of long ago go; what was made of them stays right."""

import asyncio
import random
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, func, select, text, update

from db import retention
from db.engine import open_engine
from db.errors import ReportError
from db.models import (
    CostAdjustment,
    CostAnalytics,
    Lease,
    ProviderObject,
    PrunedCharges,
    Repricing,
    Retention,
    UsageCost,
)
from db.partitions import list_partitions, make_ahead
from db.reconciliation import Names, Tolerance, compare
from db.report_call_pages import call_page
from db.report_filters import Filters
from db.report_sums import sums
from db.reports import calls, grouped
from db.retention import first_id, horizon_of, look, next_size, retain
from db.transactions import AsyncTransactions
from db.verify import verify
from pricing.exports import Export
from tests.db.bank import Bank
from tests.factories import (
    NOW_MS,
    a_row,
    a_stored_key,
    a_uuid7,
    an_adjustment,
    insert_rows,
    roll_up,
    stored,
)

DAY_MS = 86_400_000
HORIZON_MS = NOW_MS + 31 * DAY_MS  # 2026-02-01, the books are of 2026-01-01
LATER_MS = NOW_MS + 130 * DAY_MS
LATER_ID = a_uuid7(NOW_MS + 40 * DAY_MS)


def nothing(*_done):
    pass


async def remove(engine, horizon_ms=HORIZON_MS, progress=nothing):
    return await retain(AsyncTransactions(engine), horizon_ms, LATER_MS, progress)


async def count(engine, model):
    async with engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(model))).scalar_one()


async def report(engine, by):
    async with engine.connect() as connection:
        return await grouped(connection, by)


@pytest.fixture
async def used_books(books, write):
    """The books of January, a call of February, a batch that was settled and one that was not, and
    a correction that a repricing made."""

    def fill(connection):
        common = {"price_id": books.price_id, "usage": {"input_tokens": 100, "output_tokens": 50}}
        later = a_row(books.key, **common, at_ms=HORIZON_MS + 1)
        opened = [a_row(books.key, **common, ending="open") for _ in range(2)]
        for row in opened:  # at their ceiling, whatever that is
            row |= {"cost_nano": 100_000, "cost_items": None, "hold_nano": 100_000}
        settled = a_row(
            books.key, **common, adjusts=opened[0]["call_id"], call_id=LATER_ID,
            at_ms=opened[0]["at_ms"], cost_nano=0, charged_requests=0,
        )  # fmt: skip
        insert_rows(connection, later, *opened, settled)
        roll_up(connection, later, *opened, settled)
        run_id = stored(
            connection, Repricing, price_version_id=1, until_ms=NOW_MS, restated=False, asked={},
            started_at_ms=NOW_MS, calls_adjusted=1, adjusted_nano=0,
        )  # fmt: skip
        an_adjustment(connection, settled, from_price_id=books.price_id, repricing_id=run_id)
        for n, (row, adjustment_id) in enumerate(zip(opened, (LATER_ID, None), strict=True)):
            stored(
                connection, ProviderObject, provider="openai", account="", kind="batch",
                object_id=f"batch-{n}", noted_at_ms=NOW_MS, call_id=row["call_id"],
                adjustment_id=adjustment_id, ready=False,
            )  # fmt: skip

    await write(fill)
    return books


async def test_calls_go_with_all_that_is_theirs_and_the_books_stay_clean(engine, used_books):
    assert await verify(engine) == []
    before = [await report(engine, by) for by in (["day"], ["month", "model"], ["team"])]
    async with engine.connect() as connection:
        leases = (await connection.execute(select(Lease.__table__))).all()
    assert await remove(engine) == (6, 1_400_000)
    assert await verify(engine) == []
    assert [await report(engine, by) for by in (["day"], ["month", "model"], ["team"])] == before
    async with engine.connect() as connection:
        assert (await connection.execute(select(Lease.__table__))).all() == leases
        kept = (await connection.execute(select(UsageCost.at_ms))).scalars().all()
        objects = (await connection.execute(select(ProviderObject.__table__))).all()
    assert kept == [HORIZON_MS + 1]
    assert await count(engine, CostAdjustment) == 0
    assert [(o.call_id, o.adjustment_id, o.ready) for o in objects] == [(None, None, False)] * 2


async def test_what_would_go_is_told_by_month(engine, used_books):
    async with engine.connect() as connection:
        assert await look(connection, HORIZON_MS) == [("2026-01", 6, 1_400_000, 1, 1, 0, 0)]
        assert await look(connection, NOW_MS) == []


class Killed(Exception):
    pass


async def test_killed_between_batches_it_goes_on(engine, used_books, monkeypatch):
    monkeypatch.setattr(retention, "BATCH_CALLS", 1)
    monkeypatch.setattr(retention, "BATCH_CALLS_MAX", 1)
    monkeypatch.setattr(retention, "list_partitions", lambda connection: [])

    def die(done, _total):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        await remove(engine, progress=die)
    assert await verify(engine) == []
    assert (await remove(engine)).calls == 4
    assert await verify(engine) == []
    async with engine.connect() as connection:
        runs = (await connection.execute(select(Retention.__table__))).all()
    assert [(run.calls, run.cost_nano, run.finished_at_ms) for run in runs] == [
        (6, 1_400_000, LATER_MS)
    ]
    assert await remove(engine) == (0, 0)
    assert await count(engine, Retention) == 1


@pytest.mark.parametrize("by_partition", [True, False])
async def test_two_runs_at_once_remove_each_call_once(
    url, engine, used_books, monkeypatch, by_partition
):
    """As two hosts would that begin at the same hour."""
    monkeypatch.setattr(retention, "BATCH_CALLS", 1)
    monkeypatch.setattr(retention, "BATCH_CALLS_MAX", 1)
    if not by_partition:
        monkeypatch.setattr(retention, "list_partitions", lambda connection: [])
    other = open_engine(url)
    try:
        removed = await asyncio.gather(remove(engine), remove(other))
    finally:
        await other.dispose()
    assert [sum(each) for each in zip(*removed, strict=True)] == [6, 1_400_000]
    assert await verify(engine) == []
    assert await remove(engine) == (0, 0)


async def test_calls_that_arrive_later_count_and_go_the_next_time(engine, used_books, write):
    await remove(engine)

    def arrive(connection):
        row = a_row(used_books.key, price_id=used_books.price_id)
        insert_rows(connection, row)
        roll_up(connection, row)

    await write(arrive)
    assert await verify(engine) == []
    assert await remove(engine) == (1, 100_000)
    assert await verify(engine) == []


async def test_a_journal_that_comes_again_brings_no_removed_calls_back(url):
    """On whatever host: how far it was read stays when its rows go."""
    bank = await Bank.open(url)
    epoch_id, journal_id = await bank.ledger.register_epoch("boot"), uuid.uuid4().bytes
    await bank.ledger.register_journal(journal_id, epoch_id)
    await bank.lease(epoch_id, 500)
    calls = [bank.call(100, 10), bank.call(100, 20)]
    await bank.drain(journal_id, epoch_id, 0, 9, settled=calls)
    assert (await retain(bank.transactions, HORIZON_MS, LATER_MS, nothing)).calls == 2
    again = await bank.drain(journal_id, epoch_id, 0, 9, settled=calls)
    assert (again.rows, again.moved) == (0, (0, 9))
    assert (await bank.rows(), await bank.leases()) == ({}, {epoch_id: (500, 30)})
    await bank.close()


async def test_reports_that_need_calls_are_refused_before_the_horizon(engine, used_books):
    await remove(engine)
    message = "those before 2026-02-01 were removed"
    async with engine.connect() as connection:
        for since_ms in (None, HORIZON_MS - 1):
            with pytest.raises(ReportError, match=message):
                await sums(connection, ["route"], Filters(since_ms))
            with pytest.raises(ReportError, match=message):
                [call async for call in calls(connection, Filters(since_ms))]
        with pytest.raises(ReportError, match=message):
            await call_page(connection, Filters(HORIZON_MS - 1), 10)
        assert len(await call_page(connection, Filters(), 10)) == 1
        january = Export((date(2026, 1, 31),), {})
        with pytest.raises(ReportError, match=message):
            await compare(connection, january, (), Tolerance(Decimal(0), 0), Names())
        since = Filters(HORIZON_MS)
        assert len([call async for call in calls(connection, since)]) == 1
        assert len(await sums(connection, ["route"], since)) == 1
        await compare(connection, Export((date(2026, 2, 1),), {}), (), Tolerance(), Names())


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        (update(PrunedCharges).values(usd=PrunedCharges.usd + 1), "I3"),
        (delete(PrunedCharges), "I3"),
        (update(Retention).values(calls=Retention.calls + 1), "rollups"),
        (
            update(CostAnalytics)
            .where(CostAnalytics.hour < HORIZON_MS // 3_600_000)
            .values(cost_nano=CostAnalytics.cost_nano + 1),
            "rollups",
        ),
        (update(Repricing).values(pruned_calls=7), "I5"),
    ],
)
async def test_what_stays_of_removed_calls_is_verified(engine, used_books, damage, invariant):
    if engine.dialect.name != "sqlite":
        pytest.skip("once is enough")
    await remove(engine)
    async with engine.begin() as connection:
        await connection.execute(damage)
    assert {finding.invariant for finding in await verify(engine)} == {invariant}


# --- PostgreSQL ----------------------------------------------------------------------------


async def names(engine):
    async with engine.connect() as connection:
        return [part.name for part in await connection.run_sync(list_partitions)]


async def test_a_month_is_a_partition_and_dropped_whole(engine, write):
    if engine.dialect.name != "postgresql":
        pytest.skip("partitions are PostgreSQL's")
    *_, last, others = await names(engine)
    assert others.endswith("_others")
    year, month = map(int, last.split("_")[-2:])
    now = datetime(year, month, 15, tzinfo=UTC)
    now_ms = int(now.timestamp() * 1000)
    made = await write(make_ahead, now_ms)
    assert await write(make_ahead, now_ms) == []
    assert len(made) == 3
    key = await write(a_stored_key)
    rows = [a_row(key, at_ms=at_ms) for at_ms in (NOW_MS, now_ms, now_ms + 200 * DAY_MS)]
    await write(insert_rows, *rows)
    await write(roll_up, *rows)
    assert await count(engine, text(last)) == await count(engine, text(others)) == 1
    horizon_ms = horizon_of(90, now_ms + 125 * DAY_MS)
    assert (await remove(engine, horizon_ms)).calls == 2
    assert last not in await names(engine)
    assert await count(engine, text(others)) == 1
    with pytest.raises(Exception, match="others"):  # its month lies where those of no month are
        await write(make_ahead, now_ms + 200 * DAY_MS)
    assert (await remove(engine, now_ms + 240 * DAY_MS)).calls == 1
    assert await count(engine, UsageCost) == 0


# --- figures -------------------------------------------------------------------------------

AMOUNTS = st.integers(0, 10**12)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-40, 40), AMOUNTS, st.none() | AMOUNTS), max_size=12),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_rollups_and_sums_of_rows_do_not_change(migrated_sqlite, made, batch, seed):
    """Whatever calls and adjustments there are: what rows charged is there or kept, to the nano."""
    chance = random.Random(seed)
    engine = create_engine(f"sqlite:///{migrated_sqlite}")
    with engine.connect() as connection:
        key = a_stored_key(connection)
        for days, nano, adjusted in made:
            row = a_row(key, at_ms=HORIZON_MS + days * DAY_MS, cost_nano=nano)
            rows = [row]
            if adjusted is not None:
                at = {"at_ms": row["at_ms"], "call_id": a_uuid7(HORIZON_MS + 90 * DAY_MS)}
                rows.append(a_row(key, **at, adjusts=row["call_id"], cost_nano=-adjusted))
            insert_rows(connection, *rows)
            roll_up(connection, *rows)
            for each in rows[1:]:
                an_adjustment(connection, each, from_price_id=None)
        rolled = select(func.sum(CostAnalytics.cost_nano), func.sum(CostAnalytics.calls))
        before = connection.execute(rolled).one()
        run_id = retention._begin(connection, HORIZON_MS, LATER_MS)
        low = b""
        while low is not None:
            size = chance.randint(1, batch)
            low, _, _ = retention._batch(connection, run_id, low, first_id(HORIZON_MS), size)
        assert connection.execute(rolled).one() == before
        left = connection.execute(select(func.sum(UsageCost.cost_nano))).scalar() or 0
        gone = connection.execute(select(Retention.cost_nano)).scalar_one()
        assert left + gone == (before[0] or 0)
        late = [days for days, _, _ in made if days >= 0]
        kept = select(func.count()).where(UsageCost.adjusts.is_(None))
        assert connection.execute(kept).scalar_one() == len(late)
        connection.rollback()
    engine.dispose()


@pytest.mark.parametrize(
    ("keep_days", "now", "begin"),
    [
        (400, "2026-11-22", "2025-10-01"),
        (90, "2026-04-01", "2026-01-01"),
        (91, "2026-04-01", "2025-12-01"),
    ],
)
def test_the_horizon_is_the_begin_of_a_month(keep_days, now, begin):
    now_ms, begin_ms = (
        int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        for day in (now, begin)
    )
    assert horizon_of(keep_days, now_ms + 1) == begin_ms


def test_ids_are_in_the_order_of_time():
    assert a_uuid7(HORIZON_MS - 1) < first_id(HORIZON_MS) < a_uuid7(HORIZON_MS)


@pytest.mark.parametrize(
    ("calls_done", "took_s", "wanted"),
    [(200, 0.025, 200), (900, 0.05, 450), (100, 0.001, 150), (100, 9.0, 100), (10_000, 0, 10_000)],
)
def test_batches_take_as_long_as_they_are_to(calls_done, took_s, wanted):
    assert next_size(calls_done, took_s) == wanted
