"""Calls are added up by tag, some at once; what arrives later adds itself."""

import pytest
from sqlalchemy import delete, event, insert, select, update

from db import ledger_tags
from db.engine import reader
from db.ledger_tags import REST_MS, fold_tags, read_fold, rolled_up
from db.models import Retention, TagDay, TagHour, TagName, Team, UsageCost
from db.report_filters import Filters
from db.report_sums import COST, in_rollups, sums
from db.verify import verify
from tests.factories import (
    NOW_MS,
    a_row,
    a_stored_key,
    a_stored_price,
    a_uuid7,
    insert_rows,
    roll_up,
)

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START = NOW_MS // DAY_MS * DAY_MS
LATER = START + 3 * DAY_MS


@pytest.fixture
async def add(write):
    """Calls at such times with such tags."""
    key = await write(a_stored_key)
    price_id = await write(a_stored_price)

    def stored(connection, calls, more):
        rows = [
            a_row(key, at_ms=at_ms, price_id=price_id, tags=tags, **more) for at_ms, tags in calls
        ]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
        return rows

    async def add(*calls, **more):
        return await write(stored, calls, more)

    return add


async def folded(write, now_ms=LATER):
    """How often there was something to add up."""
    done = 0
    while await write(fold_tags, now_ms):
        done += 1
    return done


async def spent(engine, name, where=None):
    """By value, and whether rows were read."""
    statements = []

    def record(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    async with reader(engine).connect() as connection:
        filters = Filters(START, LATER - DAY_MS, where or {})
        found = await sums(connection, [f"tag:{name}"], filters)
    event.remove(engine.sync_engine, "before_cursor_execute", record)
    calls = {key[0]: values[0] for key, values in found.items()}
    assert all(values[COST] == 100_000 * values[0] for values in found.values())
    return calls, any(UsageCost.__tablename__ in statement for statement in statements)


HOUR = [
    (START + n * 60_000, {"env": f"e{n % 3}", "job": "j"} if n % 2 else None) for n in range(12)
]


async def test_calls_are_added_up_in_slices_and_reports_read_no_rows(
    engine, write, add, monkeypatch
):
    monkeypatch.setattr(ledger_tags, "SLICE_CALLS", 5)
    await add(*HOUR, (LATER, {"env": "young"}))
    assert (await spent(engine, "env"))[1]
    assert await folded(write) == 3
    expected = {"e0": 2, "e1": 2, "e2": 2, None: 6}
    assert await spent(engine, "env") == (expected, False)
    assert await spent(engine, "env", {"tag:env": "e1"}) == ({"e1": 2}, False)
    team = await write(lambda connection: connection.execute(select(Team.name)).scalar_one())
    assert await spent(engine, "env", {"team": team}) == (expected, False)
    assert await spent(engine, "job") == ({"j": 6, None: 6}, False)
    assert await spent(engine, "nobody-has-it") == ({None: 12}, False)
    assert await verify(engine) == []


async def test_what_arrives_later_adds_itself(engine, write, add):
    await add(*HOUR, (LATER - REST_MS - 1, None))
    await folded(write)
    (late,) = await add((START + 5, {"env": "new"}))
    await add(
        (START + 5, {"env": "new"}), call_id=a_uuid7(), adjusts=late["call_id"], cost_nano=0,
        input_tokens=0, output_tokens=0, charged_requests=0,
    )  # fmt: skip
    calls, reads_rows = await spent(engine, "env")
    assert (calls["new"], reads_rows) == (1, False)
    assert {each.invariant for each in await verify(engine)} <= {"I4", "I5", "references"}


async def test_what_is_young_waits(write, add):
    await add((NOW_MS, {"env": "x"}))
    assert await folded(write, NOW_MS + REST_MS) == 0
    assert await folded(write, NOW_MS + REST_MS + 1) == 1
    assert (await write(read_fold)).until_ms == NOW_MS + 1


async def test_a_tag_of_many_values_is_left_to_the_rows(engine, write, add, monkeypatch):
    monkeypatch.setattr(ledger_tags, "VALUES_MAX", 2)
    await add(*HOUR, (LATER - REST_MS - 1, None))
    await folded(write)
    assert not await write(rolled_up, "env")
    assert await write(rolled_up, "job")
    expected = {"e0": 2, "e1": 2, "e2": 2, None: 6}
    assert await spent(engine, "env") == (expected, True)
    await add((START + 5, {"env": "e0"}))
    assert await spent(engine, "env") == (expected | {"e0": 3}, True)
    assert await verify(engine) == []
    async with engine.connect() as connection:
        assert not await in_rollups(connection, {"tag:env"})
        assert await in_rollups(connection, {"tag:job", "team"})
        assert not await in_rollups(connection, {"tag:job", "model"})
        assert not await in_rollups(connection, {"tag:job", "tag:env"})
        assert await in_rollups(connection, {"model", "team"})


async def test_there_are_not_more_names_than_agreed(engine, write, add, monkeypatch):
    monkeypatch.setattr(ledger_tags, "NAMES_MAX", 1)
    await add(*HOUR, (LATER - REST_MS - 1, None))
    await folded(write)
    assert [await write(rolled_up, name) for name in ("env", "job", "other")] == [
        True, False, False,
    ]  # fmt: skip
    assert await spent(engine, "job") == ({"j": 6, None: 6}, True)
    assert await verify(engine) == []


async def test_what_was_removed_before_it_was_added_up_is_known_to_be(engine, write, add):
    await add(*HOUR, (LATER - REST_MS - 1, {"env": "x"}))
    await write(
        lambda connection: connection.execute(
            insert(Retention).values(
                horizon_ms=START + DAY_MS, begun_at_ms=1, finished_at_ms=2, calls=0, cost_nano=0
            )
        )
    )
    await folded(write)
    assert await write(read_fold) == (START + DAY_MS, LATER - REST_MS)
    async with engine.connect() as connection:
        query = select(TagHour.value, TagHour.calls)
        assert [tuple(row) for row in await connection.execute(query)] == [("x", 1)]


@pytest.mark.parametrize(
    "damage",
    [
        update(TagHour).values(cost_nano=TagHour.cost_nano + 1),
        update(TagDay).values(calls=0),
        delete(TagDay),
        update(TagHour).values(value="another"),
    ],
)
async def test_they_are_verified(engine, write, add, damage):
    await add(*HOUR)
    await folded(write)
    await write(lambda connection: connection.execute(damage))
    findings = await verify(engine)
    assert {finding.invariant for finding in findings} == {"rollups"}
    assert any("env=" in finding.subject for finding in findings)


async def test_names_stay(write, add):
    await add(*HOUR)
    await folded(write)
    names = select(TagName.tag, TagName.wide).order_by(TagName.tag)
    rows = await write(lambda connection: connection.execute(names).all())
    assert [tuple(row) for row in rows] == [("env", False), ("job", False)]
