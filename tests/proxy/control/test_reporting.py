"""Comparison, periods and trends, on calls whose sums are known."""

import shutil
from datetime import UTC, datetime

import pytest

from db import schema
from db.engine import open_engine, reader
from db.errors import ReportError
from proxy.control.reporting import Question, answer
from tests.factories import a_row, a_stored_key, a_stored_team, insert_rows, roll_up

DAY_MS = 24 * 3_600_000
JUNE = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
NOW = JUNE + 20 * DAY_MS + 12 * 3_600_000  # noon of the 21st


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tmp_path_factory.mktemp("reporting") / "ledger.db"


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
    """Search spends n nano-USD on the n-th of June; ads 50 on the 2nd alone."""

    def store(connection):
        search, ads = (
            a_stored_key(connection, name=team, team=a_stored_team(connection, team=team))
            for team in ("search", "ads")
        )
        rows = [
            a_row(search, at_ms=JUNE + n * DAY_MS + 3_600_000, cost_nano=n + 1) for n in range(21)
        ]
        rows.append(a_row(ads, at_ms=JUNE + DAY_MS, cost_nano=50))
        insert_rows(connection, *rows)
        roll_up(connection, *rows)

    async with engine.begin() as connection:
        await connection.run_sync(store)


async def asked(engine, by=("team",), **options):
    async with reader(engine).connect() as connection:
        return await answer(connection, Question(by=by, **options), NOW)


def picked(found, *names):
    return [tuple(row[name] for name in names) for row in found.rows]


async def test_beside_the_days_before(engine, calls):
    found = await asked(engine, since="2026-06-03", until="2026-06-04", compare=True)
    assert found.previous == (JUNE, JUNE + 2 * DAY_MS)
    names = ("team", "cost_usd", "previous_usd", "change_usd", "change_percent")
    assert picked(found, *names) == [
        ("search", "0.000000007", "0.000000003", "0.000000004", "133.3"),
        ("ads", "0", "0.00000005", "-0.00000005", "-100.0"),
    ]
    assert found.columns[-3:] == list(names[-3:])


async def test_what_was_nothing_has_no_percentage(engine, calls):
    found = await asked(engine, since="2026-06-01", until="2026-06-02", compare=True)
    assert picked(found, "previous_usd", "change_percent") == [("0", None), ("0", None)]


async def test_each_day_beside_the_day_before(engine, calls):
    found = await asked(
        engine, since="2026-06-02", until="2026-06-03", granularity="day", compare=True
    )
    assert picked(found, "period", "team", "cost_usd", "previous_usd") == [
        ("2026-06-02", "ads", "0.00000005", "0"),
        ("2026-06-02", "search", "0.000000002", "0.000000001"),
        ("2026-06-03", "ads", "0", "0.00000005"),
        ("2026-06-03", "search", "0.000000003", "0.000000002"),
    ]


async def test_periods_that_are_cut_say_so(engine, calls):
    found = await asked(engine, by=(), since="2026-06-02", granularity="week")
    assert picked(found, "period", "calls", "partial") == [
        ("2026-W23", 7, True),
        ("2026-W24", 7, False),
        ("2026-W25", 7, True),  # not over yet
    ]
    assert found.rows[1]["period_start"] == "2026-06-08T00:00:00Z"
    assert found.rows[1]["period_end"] == "2026-06-15T00:00:00Z"


async def test_without_times_nothing_is_cut_but_what_is_not_over(engine, calls):
    """Days since the last call count for the trend, too."""
    found = await asked(engine, by=(), granularity="month")
    assert picked(found, "period", "partial") == [("2026-06", True)]
    found = await asked(engine, where={"team": "ads"}, granularity="day", trend=True)
    assert picked(found, "periods", "cost_usd") == [(20, "0.00000005")]
    found = await asked(engine, by=(), granularity="day")
    assert [row["partial"] for row in found.rows] == [False] * 20 + [True]


async def test_days_of_a_time_zone(engine, calls):
    """01:00 in UTC is the evening before in New York."""
    found = await asked(
        engine, by=(), where={"team": "search"}, since="2026-05-31", until="2026-06-01",
        granularity="day", timezone="America/New_York",
    )  # fmt: skip
    assert picked(found, "period", "cost_usd") == [
        ("2026-05-31", "0.000000001"),
        ("2026-06-01", "0.000000002"),
    ]


async def test_trends_leave_out_the_day_that_is_not_over(engine, calls):
    found = await asked(engine, since="2026-06-01", until="2026-06-21", granularity="day", trend=1)
    names = ("team", "periods", "cost_usd", "mean_usd", "slope_usd", "direction")
    assert found.columns == list(names)
    assert picked(found, *names) == [
        ("ads", 20, "0.00000005", "0.000000002", "-0.000000001", "flat"),
        ("search", 20, "0.00000021", "0.00000001", "0.000000001", "rising"),
    ]


async def test_nothing_is_no_error(engine):
    for options in ({"granularity": "day"}, {"granularity": "month", "trend": True}):
        assert (await asked(engine, **options)).rows == []
    assert (await asked(engine, since="2026-06-01", compare=True)).rows == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compare": True}, "needs to know since when"),
        ({"compare": True, "since": "2026-07-01"}, "a time that has begun"),
        ({"trend": True}, "a trend needs a granularity"),
        ({"trend": True, "compare": True, "granularity": "day"}, "not for both"),
        ({"by": ("day",), "granularity": "week"}, "day is of UTC"),
        ({"by": ("hour",), "timezone": "Asia/Kolkata"}, "hour is of UTC"),
        ({"timezone": "Mars/Olympus"}, "no such time zone: 'Mars/Olympus'"),
        ({"granularity": "decade", "since": "1d"}, "no such granularity"),
    ],
)
async def test_what_makes_no_sense_is_named(engine, options, message):
    with pytest.raises(ReportError, match=message):
        await asked(engine, **options)
