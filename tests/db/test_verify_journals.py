"""I4 against journals: what was drained has its row."""

import pytest
from sqlalchemy import insert

from db.journal import JournalWriter
from db.models import JournalOffset, UsageCost
from db.verify import verify
from tests.db.books import CEILING, CEILING_COST, COST, changed
from tests.factories import a_hold, a_row, a_settle, a_uuid7, insert_rows, roll_up


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
