"""The ledger beside a provider's export: by day and model, tools apart, adjustments included."""

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from db.engine import reader
from db.models import CostValidation
from db.reconciliation import Comparison, Names, Tolerance, compare, store
from pricing.exports import Export
from tests.factories import (
    NOW_MS,
    a_row,
    a_stored_key,
    a_stored_price,
    insert_rows,
)

DAY, NEXT = date(2026, 1, 1), date(2026, 1, 2)
DAY_MS = 86_400_000
CENT = 10_000_000
EXACT = Tolerance(Decimal(0), 0)


@pytest.fixture
async def compared(engine, write):
    async def compared(rows, nano, *, days=(DAY,), providers=("openai",), names=Names()):  # noqa: B008
        if rows:
            await write(insert_rows, *rows)
        async with reader(engine).connect() as connection:
            return await compare(connection, Export(days, nano), providers, EXACT, names)

    return compared


@pytest.fixture
async def key(write):
    return await write(a_stored_key)


async def test_both_sides_of_each_day_and_model(compared, key, write):
    dated = await write(a_stored_price, "v", "openai/gpt-5-2025-08-07")
    rows = [
        a_row(key, price_id=dated, cost_nano=2),
        a_row(key, cost_nano=3),
        a_row(key, cost_nano=5, model="gpt-4o"),
        a_row(key, cost_nano=7, at_ms=NOW_MS + DAY_MS),
        a_row(key, cost_nano=11, at_ms=NOW_MS - 1),  # the day before
        a_row(key, cost_nano=13, at_ms=NOW_MS + 2 * DAY_MS),  # the day after
        a_row(key, cost_nano=17, provider="azure"),
    ]
    nano = {(DAY, "gpt-5-2025-08-07"): 5, (NEXT, "o3"): 1}
    assert await compared(rows, nano, days=(DAY, NEXT)) == [
        Comparison(DAY, "gpt-4o", 1, 5, 0, True),
        Comparison(DAY, "gpt-5", 2, 5, 5, False),
        Comparison(NEXT, "gpt-5", 1, 7, 0, True),
        Comparison(NEXT, "o3", 0, 0, 1, True),
    ]


async def test_days_the_export_does_not_speak_of_are_left_out(compared, key):
    rows = [a_row(key, at_ms=NOW_MS + n * DAY_MS, cost_nano=1) for n in range(3)]
    found = await compared(rows, {}, days=(DAY, date(2026, 1, 3)))
    assert [each.day.day for each in found] == [1, 3]


async def test_a_day_without_models_is_one_line(compared, key):
    rows = [a_row(key, cost_nano=2), a_row(key, cost_nano=3, model="gpt-4o")]
    nano = {(DAY, ""): 4, (DAY, "tool:web_search"): 1}
    assert await compared(rows, nano) == [Comparison(DAY, "", 2, 5, 5, False)]


async def test_tools_billed_apart_are_compared_apart(compared, key):
    searched = a_row(
        key, cost_nano=5 * CENT,
        cost_items=[["input", 1, 3 * CENT * 10**9], ["web_search", 2, CENT * 10**9]],
    )  # fmt: skip
    rows = [searched, a_row(key, cost_nano=1, tags={"web_search": "no"})]
    nano = {(DAY, "gpt-5"): 3 * CENT + 1, (DAY, "tool:web_search"): 2 * CENT}
    assert await compared(rows, nano) == [
        Comparison(DAY, "gpt-5", 2, 3 * CENT + 1, 3 * CENT + 1, False),
        Comparison(DAY, "tool:web_search", 1, 2 * CENT, 2 * CENT, False),
    ]


async def test_adjustments_count_on_the_day_of_their_call(compared, key):
    call = a_row(key, cost_nano=10)
    rows = [call, a_row(key, adjusts=call["call_id"], cost_nano=-4)]
    assert await compared(rows, {(DAY, "gpt-5"): 6}) == [Comparison(DAY, "gpt-5", 1, 6, 6, False)]


async def test_aliases_and_dates_in_names(compared, key):
    names = Names({"Claude 4.5 Haiku": "claude-haiku-4-5"})
    rows = [a_row(key, model="claude-haiku-4-5-20251001", cost_nano=1)]
    found = await compared(rows, {(DAY, "Claude 4.5 Haiku"): 1}, names=names)
    assert found == [Comparison(DAY, "claude-haiku-4-5", 1, 1, 1, False)]
    assert names.of("gpt-4o-latest") == names.of("gpt-4o@20250101") == names.of("GPT-4o")


async def test_an_empty_export(compared):
    assert await compared([], {}, days=()) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "exceeds"),
    [
        (100 * CENT, 100 * CENT, False),
        (101 * CENT, 100 * CENT, False),
        (101 * CENT + 1, 100 * CENT, False),  # above 1 %, but a cent and a nano
        (103 * CENT, 100 * CENT, True),
        (97 * CENT, 100 * CENT, True),
        (CENT, 0, False),
        (2 * CENT + 1, 0, True),
        (0, 3 * CENT, True),
    ],
)
def test_drift_above_both_thresholds_is_too_much(ours, theirs, exceeds):
    assert Tolerance(Decimal(1), 2 * CENT).exceeded(ours, theirs) is exceeds


async def test_what_was_found_replaces_what_the_same_file_gave_before(engine, write):
    found = [Comparison(DAY, f"m{n}", 1, 2, 3, n > 0) for n in range(1_200)]
    common = {"tolerance": EXACT, "now_ms": 7}
    await write(store, found, source="openai", file_sha256="a", **common)
    await write(store, found[:2], source="openai", file_sha256="a", **common)
    await write(store, found[:1], source="csv", file_sha256="b", **common)
    async with engine.connect() as connection:
        count = select(func.count()).select_from(CostValidation.__table__)
        assert (await connection.execute(count)).scalar_one() == 3
        row = (await connection.execute(select(CostValidation.__table__))).first()
    assert (row.day, row.model, row.ledger_nano, row.provider_nano, row.exceeds) == (
        "2026-01-01", "m0", 2, 3, False,
    )  # fmt: skip
