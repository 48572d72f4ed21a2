"""Calls page by page: every row once, the newest first, also where many have one time; one call."""

import pytest
from sqlalchemy import event

from db import journal_records
from db.engine import reader
from db.report_call_pages import call_page
from db.report_calls import FLAGS, one_call
from db.report_filters import Filters
from tests.factories import NOW_MS, a_row, a_stored_key, insert_rows


@pytest.fixture
async def connection(engine):
    async with reader(engine).connect() as connection:
        yield connection


async def test_pages_hold_every_row_once(write, connection):
    key = await write(a_stored_key)
    await write(insert_rows, *(a_row(key, at_ms=NOW_MS + number // 3) for number in range(8)))
    found, before = [], None
    while page := await call_page(connection, Filters(), 3, before):
        found += [call for _, call in page]
        before = page[-1][0]
    assert found == [call for _, call in await call_page(connection, Filters(), 100)]
    assert len({call["request_id"] for call in found}) == 8
    assert [call["at"] for call in found] == sorted((call["at"] for call in found), reverse=True)


async def test_filters_hold_on_every_page(write, connection):
    key = await write(a_stored_key)
    rows = [a_row(key, at_ms=NOW_MS + n, model=("a", "b")[n % 2]) for n in range(6)]
    await write(insert_rows, *rows)
    of_a = Filters(where={"model": "a"})
    page = await call_page(connection, of_a, 2)
    (last,) = await call_page(connection, of_a, 2, page[-1][0])
    assert [call["model"] for _, call in (*page, last)] == ["a"] * 3


async def test_rows_are_picked_before_anything_is_joined_to_them(write, engine, connection):
    """Else PostgreSQL reads every row of a large ledger for a page of fifty."""
    key = await write(a_stored_key)
    rows = [a_row(key, at_ms=NOW_MS + n) for n in range(3)]
    await write(insert_rows, *rows)
    seen = []
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *more: seen.append((more[2], more[3]))
    )
    assert len(await call_page(connection, Filters(), 2)) == 2
    (picking, _), (joining, parameters) = (each for each in seen if each[0].startswith("SELECT"))
    assert "JOIN" not in picking
    assert joining.count("SELECT") == 1
    assert set(parameters) == {row["call_id"] for row in rows[1:]}


async def test_one_call_with_its_adjustments(write, connection):
    key = await write(a_stored_key)
    row = a_row(key, cost_nano=7)
    await write(insert_rows, row)
    await write(insert_rows, a_row(key, cost_nano=-2, adjusts=row["call_id"]))
    found = await one_call(connection, row["call_id"])
    assert (found.cost_nano, found.net_nano, len(found.adjustments)) == (7, 5, 1)
    assert await one_call(connection, b"\0" * 16) is None


def test_every_flag_of_a_row_is_explained():
    single = {value for name, value in vars(journal_records).items() if name.startswith("FLAG_")}
    assert FLAGS.keys() == single
