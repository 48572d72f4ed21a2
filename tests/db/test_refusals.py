"""Counts of refused calls: each host's own rows, hostile names, whole hours, forgotten."""

import asyncio

import pytest

from db.errors import ReportError
from db.refusals import (
    HOUR_MS,
    Counted,
    Group,
    RefusedSum,
    add_refusals,
    forget_refusals,
    refusal_sums,
)

HOUR = 500_000
NOW_MS = HOUR * HOUR_MS


def a_group(**fields):
    values = {
        "hour": HOUR, "organization": "acme", "team": "search", "key_name": "prod",
        "provider": "openai", "model": "gpt-5", "code": "budget_exceeded", "scope": "key/prod",
    }  # fmt: skip
    return Group(**(values | fields))


@pytest.fixture
def add(engine):
    async def add(host, **fields):
        calls = fields.pop("calls", 1)
        group = a_group(**fields)
        counts = {group: Counted(calls, group.hour * HOUR_MS + calls)}
        async with engine.begin() as connection:
            await connection.run_sync(add_refusals, host, counts)

    return add


@pytest.fixture
def sums(engine):
    async def sums(*by, since_ms=NOW_MS, until_ms=NOW_MS + HOUR_MS, **where):
        async with engine.connect() as connection:
            found = await refusal_sums(connection, by, since_ms, until_ms, where)
        return {each.group: each.calls for each in found}

    return sums


async def test_hosts_count_beside_each_other(engine, add, sums):
    await asyncio.gather(*(add(host, calls=n) for host in ("a", "b") for n in (1, 2, 3)))
    await add("a", team="ads", calls=1)
    assert await sums("team") == {("search",): 12, ("ads",): 1}
    assert await sums() == {(): 13}
    assert await sums("code", team="acme/ads") == {("budget_exceeded",): 1}
    assert await sums("code", team="nobody") == {}
    async with engine.connect() as connection:
        (found, _) = await refusal_sums(connection, ("team",), NOW_MS, NOW_MS + 1, {}, 5)
        assert found == RefusedSum(("search",), 12, NOW_MS + 3)
        assert len(await refusal_sums(connection, ("team",), NOW_MS, NOW_MS + 1, {}, 1)) == 1


async def test_whole_hours_and_their_end(engine, add, sums):
    for hour in (HOUR - 1, HOUR, HOUR + 1):
        await add("a", hour=hour)
    assert await sums("hour") == {(HOUR,): 1}
    wide = await sums("hour", since_ms=NOW_MS - 1, until_ms=NOW_MS + HOUR_MS + 1)
    assert wide == {(HOUR - 1,): 1, (HOUR,): 1, (HOUR + 1,): 1}
    async with engine.begin() as connection:
        assert await connection.run_sync(forget_refusals, NOW_MS) == 1


async def test_names_that_no_column_takes(add, sums):
    await add("a", model="m\0" * 999, team="é" * 999, scope="<b>")
    ((model, team, scope),) = await sums("model", "team", "scope")
    assert (len(model), "\0" in model, team, scope) == (256, False, "é" * 128, "<b>")


async def test_what_they_are_not_counted_by(sums):
    with pytest.raises(ReportError, match="no 'user'"):
        await sums("user")
    with pytest.raises(ReportError, match="no 'tag:x'"):
        await sums(**{"tag:x": "y"})
    with pytest.raises(ReportError, match="give the time"):
        await sums(hour="5")
