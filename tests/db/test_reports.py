"""Reports: the fields of a call, sums from rollups and rows, budgets' windows."""

import itertools
import uuid
from decimal import Decimal

import pytest
from sqlalchemy import event

from db.catalog import sync_config
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.engine import reader
from db.errors import ReportError
from db.models import Epoch, Project, UsageCost, User, Window
from db.reports import (
    CALL_FIELDS,
    GROUP_FIELDS,
    USD_FIELDS,
    Filters,
    budget_status,
    calls,
    grouped,
)
from tests.factories import (
    NOW_MS,
    a_lease,
    a_row,
    a_stored_key,
    a_stored_price,
    a_stored_team,
    insert_rows,
    roll_up,
    stored,
)

HOUR = 3_600_000


@pytest.fixture
async def connection(engine):
    async with reader(engine).connect() as connection:
        yield connection


async def listed(connection, **filters):
    return [call async for call in calls(connection, Filters(**filters))]


# --- calls ---------------------------------------------------------------------------------

# `report --by call --format json`, as others parse it: names and order are a contract.
CONTRACT = (
    "request_id, at, provider, model, organization, team, project, user, key, tags, http_status, "
    "ending, usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, "
    "reasoning_tokens, cost_usd, hold_usd, cost_items, price_version, route, stream, duration_ms, "
    "client_retry"
)


async def test_a_call_has_the_fields_of_the_contract(write, connection):
    key = await write(a_stored_key, name="prod", team=await write(a_stored_team))
    project_id = await write(
        stored, Project, team_id=key.team_id, name="ranking", source="config", created_at_ms=1
    )
    user_id = await write(
        stored, User,
        organization_id=key.organization_id, name="ann", source="header", created_at_ms=1,
    )  # fmt: skip
    row = a_row(
        key, at_ms=NOW_MS + 7, project_id=project_id, user_id=user_id, tags={"env": "ci"},
        price_id=await write(a_stored_price), cache_read_tokens=3, cost_nano=1_234_567_891_000,
        cost_items=[["input", 3, 10**9 + 5]],
    )  # fmt: skip
    await write(insert_rows, row)
    (call,) = await listed(connection)
    assert ", ".join(call) == CONTRACT == ", ".join(CALL_FIELDS)
    assert call == {
        "request_id": str(uuid.UUID(bytes=row["call_id"])),
        "at": "2026-01-01T00:00:00.007Z",
        "provider": "openai",
        "model": "gpt-5",
        "organization": "acme",
        "team": "search",
        "project": "ranking",
        "user": "ann",
        "key": "prod",
        "tags": {"env": "ci"},
        "http_status": 200,
        "ending": "complete",
        "usage_source": "reported",
        "input_tokens": 100,
        "cache_read_tokens": 3,
        "cache_write_tokens": 0,
        "output_tokens": 50,
        "reasoning_tokens": 0,
        "cost_usd": "1234.567891",
        "hold_usd": "0.001",
        "cost_items": [{"item": "input", "count": 3, "usd": "0.000000003000000015"}],
        "price_version": "2026-01-01",
        "route": "chat.completions",
        "stream": False,
        "duration_ms": 800,
        "client_retry": 0,
    }


async def test_what_a_call_does_not_have_is_null_or_empty(write, connection):
    key = await write(a_stored_key)
    await write(insert_rows, a_row(key, cost_items=None, usage=None))
    (call,) = await listed(connection)
    assert (call["project"], call["user"], call["price_version"]) == (None, None, None)
    assert (call["tags"], call["cost_items"]) == ({}, [])


async def test_corrections_are_rows_of_their_own_and_sums_are_right(write, connection):
    key = await write(a_stored_key)
    lost = a_row(key, ending="lost", cost_nano=1_000_000)
    correction = a_row(
        key, at_ms=NOW_MS + 1, adjusts=lost["call_id"], ending="lost", cost_nano=-900_000
    )
    await write(insert_rows, lost, correction)
    first, second = await listed(connection)
    assert "adjusts" not in first
    assert second["adjusts"] == first["request_id"]
    assert Decimal(first["cost_usd"]) + Decimal(second["cost_usd"]) == Decimal("0.0001")


async def test_calls_come_in_the_order_of_time_and_within_it(write, connection):
    key = await write(a_stored_key)
    rows = [a_row(key, at_ms=NOW_MS + offset) for offset in (5, 3, 9, 1)]
    await write(insert_rows, *rows)
    found = await listed(connection, since_ms=NOW_MS + 3, until_ms=NOW_MS + 9)
    assert [call["at"][-4:] for call in found] == ["003Z", "005Z"]


async def test_long_reports_are_fetched_in_pieces(write, connection):
    key = await write(a_stored_key)
    await write(insert_rows, *(a_row(key, at_ms=NOW_MS + n) for n in range(2_500)))
    report = calls(connection)
    assert (await anext(report))["at"].endswith(".000Z")
    await report.aclose()  # and can be left before their end
    assert len(await listed(connection)) == 2_500


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"team": "search"}, 2),
        ({"team": "acme/search"}, 2),
        ({"team": "search", "model": "gpt-6"}, 1),
        ({"key": "b/c"}, 1),
        ({"organization": "acme"}, 3),
        ({"user": "acme/zoe"}, 1),
        ({"route": "responses"}, 1),
        ({"ending": "lost"}, 1),
        ({"tag:env": "ci"}, 1),
        ({"tag:x\"'y": "1"}, 0),
        ({"price_version": "2026-01-01"}, 1),
        ({"provider": "nobody"}, 0),
    ],
)
async def test_filters(write, connection, where, count):
    search = await write(a_stored_team)
    key_a = await write(a_stored_key, name="a", team=search)
    key_b = await write(a_stored_key, name="b/c", team=await write(a_stored_team, team="ads"))
    zoe = await write(
        stored, User,
        organization_id=search.organization_id, name="zoe", source="header", created_at_ms=1,
    )  # fmt: skip
    await write(
        insert_rows,
        a_row(key_a, model="gpt-6", user_id=zoe, tags={"env": "ci"}),
        a_row(key_a, ending="lost", price_id=await write(a_stored_price)),
        a_row(key_b, route="responses"),
    )
    assert len(await listed(connection, where=where)) == count
    groups = await grouped(connection, [], Filters(where={"ending": "complete"} | where))
    assert sum(group["calls"] for group in groups) <= count


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"team": "sales"}, "no such team: 'sales'"),
        ({"galaxy": "x"}, "by 'galaxy'; possible: organization, team, .*, tag:NAME"),
        ({"tag:": "x"}, "by 'tag:'"),
        ({"day": "2026-01-01"}, "filter by time with since and until, not by day"),
    ],
)
async def test_filters_that_make_no_sense_are_named(connection, where, message):
    with pytest.raises(ReportError, match=message):
        await listed(connection, where=where)


# --- sums ----------------------------------------------------------------------------------


@pytest.fixture
async def month(write):
    """Two teams, two models, 40 calls over three days, some of them corrected, rolled up."""
    keys = [
        await write(a_stored_key, name=f"key-of-{team}", team=await write(a_stored_team, team=team))
        for team in ("search", "ads")
    ]
    rows = [
        a_row(
            keys[n % 2], at_ms=NOW_MS + n * 6_000_000, model=f"gpt-{n % 3}", input_tokens=n,
            cost_nano=n * 1000, tags={"env": "ci" if n % 4 else "prod"},
        )
        for n in range(40)
    ]  # fmt: skip
    corrections = [
        a_row(keys[0], at_ms=row["at_ms"], adjusts=row["call_id"], cost_nano=-1, input_tokens=-1,
              output_tokens=0)
        for row in rows[::10]
    ]  # fmt: skip
    await write(insert_rows, *rows)
    await write(insert_rows, *corrections)
    await write(roll_up, *rows, *corrections)
    return [*rows, *corrections]


DIMENSIONS = ("organization", "team", "key", "user", "project", "provider", "model", "hour", "day",
              "month")  # fmt: skip


SPANS = [(None, None), (NOW_MS + 1, None), (NOW_MS + 90, NOW_MS + 30 * HOUR + 7),
         (None, NOW_MS + 99), (NOW_MS + 100, NOW_MS + 200)]  # fmt: skip


async def test_rollups_and_rows_give_the_same_sums(connection, month):
    """A filter that rollups do not have makes the same report come from the rows alone."""
    groupings = [*itertools.combinations(DIMENSIONS, 1), ("team", "model", "day")]
    for by, (since, until) in itertools.product(groupings, SPANS):
        mixed = await grouped(connection, by, Filters(since, until))
        rows = await grouped(connection, by, Filters(since, until, {"ending": "complete"}))
        assert mixed == rows, (by, since, until)
        inside = [r for r in month if (since or 0) <= r["at_ms"] < (until or 2**60)]
        assert sum(group["calls"] for group in mixed) == sum(r["adjusts"] is None for r in inside)
        total = sum(Decimal(group["cost_usd"]) for group in mixed)
        assert total == Decimal(sum(r["cost_nano"] for r in inside)) / 10**9


async def test_whole_hours_never_touch_the_rows(engine, connection, month):
    statements = []

    def record(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    await grouped(connection, ["team"], Filters(NOW_MS, NOW_MS + 5 * HOUR, {"model": "gpt-1"}))
    assert statements
    assert not any(UsageCost.__tablename__ in statement for statement in statements)


async def test_groups_are_named_and_come_dearest_first(connection, month):
    groups = await grouped(connection, ["team", "model"])
    assert list(groups[0]) == ["team", "model", *GROUP_FIELDS]
    costs = [Decimal(group["cost_usd"]) for group in groups]
    assert costs == sorted(costs, reverse=True)
    assert {group["team"] for group in groups} == {"search", "ads"}


async def test_time_groups_come_in_order(connection, month):
    days = await grouped(connection, ["day"])
    assert [group["day"] for group in days] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert [group["month"] for group in await grouped(connection, ["month"])] == ["2026-01"]
    hours = [group["hour"] for group in await grouped(connection, ["hour"])]
    assert hours[:2] == ["2026-01-01T00:00Z", "2026-01-01T01:00Z"]
    assert hours == sorted(hours)


@pytest.mark.parametrize("by", ["route", "ending", "price_version", "tag:env", "tag:none"])
async def test_dimensions_only_rows_have(connection, month, by):
    groups = await grouped(connection, [by])
    assert sum(group["calls"] for group in groups) == 40
    values = {group[by] for group in groups}
    assert values == {
        "route": {"chat.completions"}, "ending": {"complete"}, "price_version": {None},
        "tag:env": {"ci", "prod", None}, "tag:none": {None},
    }[by]  # fmt: skip


async def test_customers_are_a_dimension_and_named_with_their_calls(write, connection):
    key = await write(a_stored_key)
    for customer, count in (("c-1", 2), ("c-2", 1)):
        tags = {"tollkeeper.customer": customer}
        await write(insert_rows, *(a_row(key, tags=tags) for _ in range(count)))
    await write(insert_rows, a_row(key))
    groups = await grouped(connection, ["customer"])
    assert {group["customer"]: group["calls"] for group in groups} == {"c-1": 2, "c-2": 1, None: 1}
    found = await grouped(connection, [], Filters(where={"customer": "c-1"}))
    assert [group["calls"] for group in found] == [2]
    named = [call.get("customer") async for call in calls(connection, Filters())]
    assert sorted(filter(None, named)) == ["c-1", "c-1", "c-2"]


async def test_total_of_nothing_is_zero(connection):
    assert await grouped(connection, []) == [
        {"calls": 0, "input_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0,
         "output_tokens": 0, "reasoning_tokens": 0, **dict.fromkeys(USD_FIELDS, "0")}
    ]  # fmt: skip
    assert await grouped(connection, ["team"]) == []


async def test_same_names_are_told_apart_by_their_path(write, connection):
    for organization in ("acme", "globex"):
        team = await write(a_stored_team, organization, "search")
        await write(insert_rows, a_row(await write(a_stored_key, team=team)))
    by_team = await grouped(connection, ["team", "ending"])
    assert [group["team"] for group in by_team] == ["acme/search", "globex/search"]


async def test_unknown_dimension_is_named(connection):
    with pytest.raises(ReportError, match="cannot group or filter by 'galaxy'"):
        await grouped(connection, ["team", "galaxy"])


# --- every report uses its index -----------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (Filters(NOW_MS, NOW_MS + HOUR), "ix_ai_usage_costs_at"),
        (Filters(NOW_MS, NOW_MS + HOUR, {"team": "search"}), "ix_ai_usage_costs_at"),
        (Filters(NOW_MS, NOW_MS + HOUR, {"key": "prod"}), "ix_ai_usage_costs_key_at"),
    ],
)
async def test_calls_use_an_index(engine, connection, write, filters, index):
    await write(a_stored_key, name="prod", team=await write(a_stored_team))
    plan = await plan_of(engine, connection, lambda: drained(calls(connection, filters)))
    assert index in plan


async def test_sums_use_the_index_of_hours(engine, connection):
    filters = Filters(NOW_MS, NOW_MS + HOUR)
    plan = await plan_of(engine, connection, lambda: grouped(connection, ["team"], filters))
    assert "ix_ai_cost_analytics_hour" in plan


async def drained(report):
    return [row async for row in report]


async def plan_of(engine, connection, run):
    """The plan of the last statement a report executes."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by statistics: tables this small are scanned")
    seen = []

    def record(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    await run()
    statement, parameters = seen[-1]
    plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return "\n".join(row[-1] for row in plan)


# --- budgets -------------------------------------------------------------------------------


async def test_budget_status_is_that_of_the_current_window(write, connection):
    declared = Declared(
        teams=(("acme", "search"),),
        keys=(DeclaredKey("prod", "ab" * 32, "acme", "search"),),
        budgets=(
            DeclaredBudget("team/acme/search", "usd", 100, "day"),
            DeclaredBudget("organization/acme", "usd", 500, "month"),
            DeclaredBudget("key/prod", "usd", 5, "request"),
        ),
    )
    await write(sync_config, declared, NOW_MS)
    epochs = [
        await write(stored, Epoch, host_id="h", boot_id="b", state="open", opened_at_ms=1,
                    seen_at_ms=1)
        for _ in range(2)
    ]  # fmt: skip
    windows = [
        await write(stored, Window, budget_id=1, starts_at=start, committed=90, extra=extra,
                    overage=3)
        for start, extra in ((0, 0), (86_400, 20))
    ]  # fmt: skip
    for epoch_id, granted, spent in ((epochs[0], 60, 40), (epochs[1], 30, 5)):
        await write(a_lease, windows[1], epoch_id, granted, spent)
    await write(a_lease, windows[0], epochs[0], 90, 90)

    def starts_at(budget):
        return {"day": 86_400, "month": 0}.get(budget.period)

    day, month, cap = await budget_status(connection, starts_at)
    assert (day.limit, day.committed, day.spent, day.leased) == (120, 90, 45, 45)
    assert (day.remaining, day.overage, day.starts_at) == (75, 3, 86_400)
    assert (month.limit, month.committed, month.spent, month.starts_at) == (500, 0, 0, 0)
    assert (cap.limit, cap.committed, cap.starts_at) == (5, 0, None)
