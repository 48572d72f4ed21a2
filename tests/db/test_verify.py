"""A clean ledger verifies; each way of damaging it is found, and only that."""

from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, insert, text, update

from db.engine import open_engine
from db.errors import DatabaseUnusable
from db.journal import JournalWriter
from db.models import (
    Budget,
    ChargeSet,
    ChargeSetWindow,
    CostAnalytics,
    Epoch,
    JournalOffset,
    Lease,
    ModelCost,
    UsageCost,
    Window,
)
from db.verify import FINDINGS_MAX, verify
from tests.factories import (
    NOW_MS,
    KeyIds,
    a_hold,
    a_lease,
    a_row,
    a_settle,
    a_stored_key,
    a_stored_price,
    a_uuid7,
    insert_rows,
    roll_up,
    stored,
)

COST = 100_000  # of `a_row`: 100 tokens in at 250, 50 out at 1,500 nano-USD
CEILING = {"input_tokens": 1000, "output_tokens": 500}
CEILING_COST = 1_000_000


@dataclass
class Books:
    """A ledger with a budget per unit on the same calls: window ids by unit."""

    key: KeyIds
    price_id: int
    epoch_id: int
    charge_set_id: int
    windows: dict[str, int]
    rows: list[bytes]  # complete, lost, unreachable, corrected, its correction


def clean_books(connection: Connection) -> Books:
    key = a_stored_key(connection)
    price_id = a_stored_price(connection)
    epoch_id = stored(
        connection, Epoch,
        host_id="host", boot_id="boot", state="open", opened_at_ms=NOW_MS, seen_at_ms=NOW_MS,
    )  # fmt: skip
    windows = {unit: _window(connection, unit) for unit in ("usd", "tokens", "requests")}
    set_id = stored(connection, ChargeSet, digest="0" * 64)
    members = [{"charge_set_id": set_id, "window_id": id_} for id_ in windows.values()]
    connection.execute(insert(ChargeSetWindow), members)
    common = {"charge_set_id": set_id, "price_id": price_id}
    lost = {
        "ending": "lost", "usage": CEILING, "cost_nano": CEILING_COST, "cost_items": None,
        "charged_tokens": 1500,
    }  # fmt: skip
    unreachable = {
        "ending": "unreachable", "usage": None, "usage_source": "none", "cost_nano": 0,
        "cost_items": None, "charged_tokens": 0,
    }  # fmt: skip
    corrected = a_row(key, **common, **lost)
    correction = a_row(
        key, **common, adjusts=corrected["call_id"], cost_nano=COST - CEILING_COST,
        cost_items=None, charged_tokens=150 - 1500, charged_requests=0,
    )  # fmt: skip
    rows = [
        a_row(key, **common),
        a_row(key, **common, **lost),
        a_row(key, **common, **unreachable),
        corrected,
        correction,
    ]
    insert_rows(connection, *rows)
    roll_up(connection, *rows)
    spent = {"usd": COST + 2 * CEILING_COST, "tokens": 150 + 2 * 1500, "requests": 4}
    adjusted = {"usd": COST - CEILING_COST, "tokens": 150 - 1500, "requests": 0}
    for unit, window_id in windows.items():
        granted = spent[unit] + 1000  # 1000 is in somebody's slice
        a_lease(connection, window_id, epoch_id, granted, spent[unit])
        a_lease(connection, window_id, 0, adjusted[unit], adjusted[unit])
        committed = update(Window).where(Window.id == window_id)
        connection.execute(committed.values(committed=granted + adjusted[unit]))
    return Books(key, price_id, epoch_id, set_id, windows, [row["call_id"] for row in rows])


def _window(connection: Connection, unit: str) -> int:
    budget_id = stored(
        connection, Budget,
        identity=f"organization/acme|{unit}|day", scope_kind="organization", unit=unit,
        limit_value=10_000_000, period="day", source="config", created_at_ms=NOW_MS,
    )  # fmt: skip
    return stored(connection, Window, budget_id=budget_id, starts_at=0)


@pytest.fixture
def write(engine):
    async def write(function, *arguments):
        async with engine.begin() as connection:
            return await connection.run_sync(function, *arguments)

    return write


@pytest.fixture
async def books(write):
    return await write(clean_books)


def changed(model, where, **values):
    """A function that damages rows."""
    return lambda connection: connection.execute(update(model).where(*where).values(**values))


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


# --- journals ------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path):
    writer = JournalWriter.create(tmp_path / "journal", epoch_id=1, host_id="h", boot_id="b")
    yield writer
    writer.close()


async def with_journal(write, books, journal, **values):
    values = {"segment": 0, "offset": journal.position[1]} | values
    row = {"journal_id": journal.journal_id, "epoch_id": books.epoch_id, **values}
    await write(lambda connection: connection.execute(insert(JournalOffset).values(**row)))


@pytest.fixture
async def journaled(write, books, journal):
    """Two calls: one settled and drained, one still open."""
    done, open_ = a_hold(a_uuid7()), a_hold(a_uuid7())
    journal.append_hold(done)
    journal.append_hold(open_)
    journal.append_settle(a_settle(done, charge=COST))
    row = a_row(books.key, call_id=done.call_id, price_id=books.price_id)
    await write(insert_rows, row)
    await write(roll_up, row)
    return done.call_id, open_.call_id


async def test_drained_calls_have_their_rows(engine, write, books, journal, journaled, tmp_path):
    await with_journal(write, books, journal)
    assert await verify(engine, journal_dir=tmp_path / "journal") == []


async def test_call_without_a_row_is_found(engine, write, books, journal, tmp_path):
    hold = a_hold(a_uuid7())
    journal.append_hold(hold)
    journal.append_settle(a_settle(hold))
    await with_journal(write, books, journal)
    (finding,) = await verify(engine, journal_dir=tmp_path / "journal")
    assert finding.invariant == "I4"
    assert f"journal {journal.journal_id.hex()} has it, but no cost row" in finding.message


async def test_calls_behind_the_offset_are_not_expected(engine, write, books, journal, tmp_path):
    start = journal.position[1]
    hold = a_hold(a_uuid7())
    journal.append_hold(hold)
    journal.append_settle(a_settle(hold))
    await with_journal(write, books, journal, offset=start)
    assert await verify(engine, journal_dir=tmp_path / "journal") == []


async def test_open_holds_of_a_finished_journal_have_rows_too(
    engine, write, books, journal, journaled, tmp_path
):
    await with_journal(write, books, journal, finished=True)
    (finding,) = await verify(engine, journal_dir=tmp_path / "journal")
    assert finding.invariant == "I4"
    lost = a_row(
        books.key, call_id=journaled[1], price_id=books.price_id, ending="lost", usage=CEILING,
        cost_nano=CEILING_COST, cost_items=None,
    )  # fmt: skip
    await write(insert_rows, lost)
    await write(roll_up, lost)
    assert await verify(engine, journal_dir=tmp_path / "journal") == []


async def test_row_that_differs_from_its_journal_is_found(
    engine, write, books, journal, journaled, tmp_path
):
    await with_journal(write, books, journal)
    doubled = {"usage": {"input_tokens": 200, "output_tokens": 100}, "cost_nano": 2 * COST}
    await write(changed(UsageCost, [UsageCost.call_id == journaled[0]], cost_items=None, **doubled))
    findings = await verify(engine, journal_dir=tmp_path / "journal")
    (finding,) = [finding for finding in findings if finding.invariant == "I4"]
    assert finding.message == "costs 0.0002 USD, in its journal 0.0001"


async def test_long_journals_are_compared_in_pieces(engine, write, books, journal, tmp_path):
    holds = [a_hold(a_uuid7()) for _ in range(2_100)]
    for hold in holds:
        journal.append_hold(hold)
        journal.append_settle(a_settle(hold, charge=COST))
    rows = [a_row(books.key, call_id=h.call_id, price_id=books.price_id) for h in holds[:-1]]
    await write(insert_rows, *rows)
    await write(roll_up, *rows)
    await with_journal(write, books, journal)
    (finding,) = await verify(engine, journal_dir=tmp_path / "journal")
    assert finding.invariant == "I4"


async def test_journals_that_are_elsewhere_are_skipped(engine, write, books, journal, tmp_path):
    await with_journal(write, books, journal)
    assert await verify(engine, journal_dir=tmp_path / "nowhere") == []
