"""A clean ledger verifies; each way of damaging it is found, and only that."""

import pytest
from sqlalchemy import text, update

from db.engine import open_engine
from db.errors import DatabaseUnusable
from db.models import (
    Budget,
    CostAnalytics,
    Epoch,
    Lease,
    ModelCost,
    UsageCost,
    Window,
)
from db.verify import FINDINGS_MAX, verify
from tests.db.books import CEILING_COST, COST, Books, changed
from tests.factories import (
    KeyIds,
    a_row,
    a_stored_price,
    an_adjustment,
    insert_rows,
    roll_up,
)


def of_window(books, unit):
    return [Window.id == books.windows[unit]]


# --- clean ---------------------------------------------------------------------------------


async def test_clean_books_verify(engine, books):
    assert await verify(engine) == []


async def test_empty_database_verifies(engine):
    assert await verify(engine) == []


async def test_progress_goes_from_nothing_to_all(engine, write, books):
    rows = [a_row(books.key, price_id=books.price_id) for _ in range(4_100)]
    await write(insert_rows, *rows)
    await write(roll_up, *rows)
    seen = []
    assert await verify(engine, progress=lambda done, total: seen.append((done, total))) == []
    assert seen == [(0, 4_105), (2_000, 4_105), (4_000, 4_105), (4_105, 4_105)]


async def test_unreachable_database_is_said(tmp_path):
    engine = open_engine(f"postgresql+asyncpg://u@/x?host={tmp_path}")
    with pytest.raises(DatabaseUnusable):
        await verify(engine)
    await engine.dispose()


async def test_limit_lowered_below_what_was_committed_is_no_finding(engine, write, books):
    committed = 200_000 + CEILING_COST + 1000
    await write(changed(Budget, [Budget.unit == "usd"], limit_value=5))
    assert {finding.invariant for finding in await verify(engine)} == {"I1a"}
    await write(changed(Window, of_window(books, "usd"), lowered_from=committed))
    assert await verify(engine) == []


async def test_flagged_overage_is_no_finding(engine, write, books):
    await write(changed(Budget, [Budget.unit == "usd"], limit_value=CEILING_COST))
    await write(changed(Window, of_window(books, "usd"), overage=COST + CEILING_COST))
    await write(changed(UsageCost, [UsageCost.call_id.in_(books.rows[:2])], flags=4))
    assert await verify(engine) == []


async def test_corrections_above_the_limit_are_no_finding(engine, write, books):
    """A dearer price was found for a window that is spent: the calls were made."""
    await write(changed(Budget, [Budget.unit == "usd"], limit_value=2_101_000))

    def dearer(connection):
        row = a_row(
            books.key, adjusts=books.rows[0], price_id=books.price_id, cost_items=None,
            usage={"input_tokens": 8_000_100, "output_tokens": 50}, cost_nano=2 * 10**9,
            charge_set_id=books.charge_set_id, charged_tokens=0, charged_requests=0,
        )  # fmt: skip
        insert_rows(connection, row)
        roll_up(connection, row)
        an_adjustment(connection, row, from_price_id=books.price_id)
        window_id, adjusted = books.windows["usd"], 2 * 10**9 - 900_000
        lease = update(Lease).where(Lease.epoch_id == 0, Lease.window_id == window_id)
        connection.execute(lease.values(granted=adjusted, spent=adjusted))
        window = update(Window).where(Window.id == window_id)
        connection.execute(window.values(committed=2_101_000 + adjusted))

    await write(dearer)
    assert await verify(engine) == []


# --- damaged -------------------------------------------------------------------------------


def damages(books):
    usd, tokens = of_window(books, "usd"), of_window(books, "tokens")
    complete, lost, unreachable, corrected, correction = (
        [UsageCost.call_id == call_id] for call_id in books.rows
    )
    of_lease = [Lease.epoch_id == books.epoch_id, Lease.window_id == books.windows["tokens"]]
    return {
        "limit": (changed(Budget, [Budget.unit == "usd"], limit_value=5), {"I1a"}),
        "overage": (changed(Window, usd, overage=1), {"I1c"}),
        "committed": (changed(Window, tokens, committed=1), {"I3"}),
        "granted": (changed(Lease, of_lease, granted=9000), {"I3"}),
        "spent": (changed(Lease, of_lease, spent=1), {"I3"}),
        "charged tokens": (changed(UsageCost, complete, charged_tokens=1), {"I3"}),
        "charge set": (changed(UsageCost, complete, charge_set_id=None), {"I3"}),
        "closed": (changed(Epoch, [Epoch.id == books.epoch_id], state="closed"), {"I4"}),
        "hold": (changed(UsageCost, complete, hold_nano=COST - 1), {"I1c"}),
        "chain": (changed(UsageCost, correction, adjusts=books.rows[4]), {"I4", "I5"}),
        "usage": (changed(UsageCost, complete, usage={"input_tokens": 1}), {"I5"}),
        "bad usage": (changed(UsageCost, complete, usage={"tokens": 1}), {"I5"}),
        "items": (changed(UsageCost, complete, cost_items=[["input", 100, 1]]), {"I5"}),
        "lost usage": (changed(UsageCost, lost, usage={"input_tokens": 1}), {"I5"}),
        "no price": (changed(UsageCost, complete, price_id=None), {"I5"}),
        "free": (changed(UsageCost, unreachable, cost_nano=1), {"I3", "I5", "rollups"}),
        "correction": (changed(UsageCost, correction, usage={"input_tokens": 1}), {"I5"}),
        "corrected": (changed(UsageCost, corrected, usage={"input_tokens": 1}), {"I5"}),
        "entry": (changed(ModelCost, [], entry={"input_cost_per_token": "1"}), {"I5"}),
        "no entry": (changed(ModelCost, [], entry={}), {"I5"}),
        "bad entry": (changed(ModelCost, [], entry={"input_cost_per_token": "x"}), {"I5"}),
        "rollup": (changed(CostAnalytics, [CostAnalytics.calls > 1], calls=9), {"rollups"}),
        "rollup hour": (changed(CostAnalytics, [CostAnalytics.calls > 1], hour=1), {"rollups"}),
    }  # fmt: skip


NAMES = damages(Books(KeyIds(1, 1, 1), 1, 1, 1, {"usd": 1, "tokens": 2}, [b""] * 5)).keys()


@pytest.mark.parametrize("name", NAMES)
async def test_damage_is_found(engine, write, books, name):
    damage, invariants = damages(books)[name]
    await write(damage)
    findings = await verify(engine)
    assert {finding.invariant for finding in findings} == invariants
    assert all(finding.subject and finding.message for finding in findings)


async def test_messages_name_the_window_and_both_sums(engine, write, books):
    await write(changed(Window, of_window(books, "tokens"), committed=1))
    (finding,) = await verify(engine)
    assert finding == (
        "I3",
        f"window {books.windows['tokens']} (organization/acme|tokens|day, from 0)",
        "1 tokens are committed, its leases sum up to 2800",
    )


async def test_lease_spent_beyond_its_grant(engine, write, books):
    """The table refuses it, so the table has to be damaged first."""
    if engine.dialect.name == "postgresql":
        check = "ALTER TABLE ai_budget_leases DROP CONSTRAINT ck_ai_budget_leases_spent"
    else:
        check = "PRAGMA ignore_check_constraints=ON"

    async with engine.connect() as connection:
        driver = await connection.get_raw_connection()
        await driver.driver_connection.execute(check)
        async with connection.begin():
            await connection.execute(
                update(Lease).where(Lease.epoch_id == books.epoch_id).values(granted=0)
            )
    findings = await verify(engine)
    assert {finding.invariant for finding in findings} == {"I2", "I3"}
    i2 = [finding.message for finding in findings if finding.invariant == "I2"]
    assert "spent 4 of 0 granted" in i2


async def test_dangling_reference(engine, books):
    if engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL keeps references at all times")
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.execute("PRAGMA foreign_keys=OFF")
        async with connection.begin():
            await connection.execute(text("DELETE FROM ai_teams"))
        await driver.execute("PRAGMA foreign_keys=ON")
    findings = await verify(engine)
    assert {finding.invariant for finding in findings} == {"references"}
    assert "refers to no row of ai_teams" in findings[0].message


async def test_many_findings_are_cut(engine, write, books):
    rows = [a_row(books.key, cost_nano=5, price_id=None) for _ in range(FINDINGS_MAX + 50)]
    await write(insert_rows, *rows)
    findings = [finding for finding in await verify(engine) if finding.invariant == "I5"]
    assert len(findings) == FINDINGS_MAX + 1
    assert findings[-1].subject == "..."


# --- passes at other models ----------------------------------------------------------------

PASSES = {
    "usage": {
        "input_tokens": 100, "output_tokens": 50,
        "passes": [["small", {"input_tokens": 4, "output_tokens": 2}]],
    },
    "cost_nano": 100_011,
    "cost_items": [["input", 100, 250 * 10**9], ["output", 50, 1500 * 10**9],
                   ["input@small", 4, 10**9], ["output@small", 2, 3_500_000_000]],
}  # fmt: skip


@pytest.mark.parametrize("stored_price", ["0.000000001", "0.000000002", None])
async def test_passes_are_priced_by_their_own_model(engine, write, books, stored_price):
    """Where no row refers to the other model, its price stands in the items alone."""
    row = a_row(books.key, price_id=books.price_id, **PASSES)
    await write(insert_rows, row)
    await write(roll_up, row)
    if stored_price:
        small = await write(a_stored_price, "2026-01-01", "openai/small")
        entry = {"input_cost_per_token": stored_price, "output_cost_per_token": "0.0000000035"}
        await write(changed(ModelCost, [ModelCost.id == small], entry=entry))
    expected = {"I5"} if stored_price == "0.000000002" else set()
    assert {finding.invariant for finding in await verify(engine)} == expected
