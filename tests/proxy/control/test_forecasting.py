"""Forecasts and exhaustion of a ledger whose weeks repeat."""

import shutil
from datetime import UTC, datetime

import pytest

from db import schema
from db.catalog_types import BudgetRow
from db.engine import open_engine, reader
from db.errors import ReportError
from db.reports import BudgetStatus
from proxy.control.forecasting import Outlook, exhaustion, period_end
from tests.factories import a_row, a_stored_key, a_stored_team, insert_rows, roll_up

DAY_MS = 24 * 3_600_000
USD = 10**9
JUNE = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
NOW = JUNE + 20 * DAY_MS + DAY_MS // 2  # noon of the 21st
SEARCH, ADS = 2 * USD, 1 * USD  # a day


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tmp_path_factory.mktemp("forecasting") / "ledger.db"


@pytest.fixture
async def engine(template, tmp_path):
    if not template.exists():
        made = open_engine(f"sqlite+aiosqlite:///{template}")
        await schema.upgrade(made)
        await made.dispose()
    shutil.copy(template, tmp_path / "ledger.db")
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    yield engine
    await engine.dispose()


@pytest.fixture
async def calls(engine):
    """60 days of 2 and 1 USD a day, at 6 in the morning; today's came, too."""

    def store(connection):
        keys = [
            a_stored_key(connection, name=team, team=a_stored_team(connection, team=team))
            for team in ("search", "ads")
        ]
        rows = [
            a_row(key, at_ms=NOW - n * DAY_MS - DAY_MS // 4, cost_nano=nano, model=model)
            for n in range(60)
            for key, nano, model in zip(keys, (SEARCH, ADS), ("gpt-5", "claude"), strict=True)
        ]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)

    async with engine.begin() as connection:
        await connection.run_sync(store)


async def ends(engine, **options):
    async with reader(engine).connect() as connection:
        return await period_end(connection, Outlook(**options), NOW)


async def test_the_end_of_the_month(engine, calls):
    """21 days are spent, half of today and nine days are to come."""
    assert await ends(engine, by=("team",)) == [
        {
            "team": team,
            "period_start": "2026-06-01T00:00:00Z",
            "period_end": "2026-07-01T00:00:00Z",
            "spent_usd": spent,
            "expected_usd": expected,
            "low_usd": expected,
            "high_usd": expected,
            "days_of_history": 59,
        }
        for team, spent, expected in (("search", "42", "61"), ("ads", "21", "30.5"))
    ]


async def test_of_a_zone_and_of_some_calls(engine, calls):
    options = {"timezone": "Asia/Tokyo", "where": {"team": "ads"}, "period": "week"}
    (row,) = await ends(engine, **options)
    assert row["period_end"] == "2026-06-21T15:00:00Z"  # at midnight of Monday there
    assert float(row["expected_usd"]) == pytest.approx(float(row["spent_usd"]) + 3 / 24)


async def test_of_nothing_and_of_nonsense(engine):
    assert await ends(engine) == []
    with pytest.raises(ReportError, match="no forecast for 'decade'"):
        await ends(engine, period="decade")
    with pytest.raises(ReportError, match="history is 1 to 730 days"):
        await ends(engine, history_days=0)


async def exhausted(engine, spent=0, **fields):
    values = {
        "id": 1, "scope": "team/acme/search", "unit": "usd", "limit": 40 * USD, "period": "month",
        "timezone": "UTC", "week_start": 0, "month_day": 1, "models": (), "providers": (),
    } | fields  # fmt: skip
    budget = BudgetRow(**values)
    status = BudgetStatus(budget, 0, budget.limit, spent, spent, 0)
    async with reader(engine).connect() as connection:
        return await exhaustion(connection, status, NOW)


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"limit": 5 * USD}, "2026-06-24T00:00:00Z"),  # half a day at 2, and two whole ones
        ({"limit": 5 * USD, "spent": 4 * USD}, "2026-06-22T00:00:00Z"),
        ({"limit": 7 * USD, "scope": "organization/acme"}, "2026-06-23T20:00:00Z"),
        ({"limit": 5 * USD, "scope": "organization/acme", "models": ("CLAUDE*",)}, "2026-06-26T12"),
        ({"limit": 3, "unit": "requests"}, "2026-06-24T12:00:00Z"),
        ({"limit": 375, "unit": "tokens"}, "2026-06-24T00:00:00Z"),
        ({"limit": 100 * USD, "period": "total"}, "2026-08-10T12:00:00Z"),
        ({"limit": 5 * USD, "spent": 5 * USD}, "2026-06-21T12:00:00Z"),
    ],
)
async def test_when_a_budget_is_spent(engine, calls, fields, at):
    assert (await exhausted(engine, **fields))[0].startswith(at)


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        ({}, "not in this period"),
        ({"limit": 10_000 * USD, "period": "total"}, "not in a year"),
        ({"period": "hour"}, "periods of a day and longer are forecast"),
        ({"models": ("gemini*",)}, "0 days of history are too few"),
    ],
)
async def test_why_there_is_no_date(engine, calls, fields, because):
    assert await exhausted(engine, **fields) == ("", because)
