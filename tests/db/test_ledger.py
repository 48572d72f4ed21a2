"""The ledger's statements, on SQLite and PostgreSQL."""

import os
import uuid

import pytest
from sqlalchemy import event, select, update

from db.catalog_budget_edits import create_budget
from db.catalog_budgets import identity_of
from db.catalog_types import DeclaredBudget
from db.customers import id_of, identity_of_customer
from db.journal_records import FLAG_UNBACKED, Hold
from db.ledger_corrections import UnknownCall
from db.ledger_types import Batch, Correction, EpochClosed, LeaseRequest, LeaseState, OutcomeUnknown
from db.models import ChargeSet, Epoch, ModelCost, PriceVersion, User
from db.models import Window as WindowRow
from tests.db.bank import LIMIT, Bank
from tests.factories import a_settle


@pytest.fixture
async def bank(url):
    bank = await Bank.open(url)
    yield bank
    await bank.check()
    await bank.close()


@pytest.fixture
async def epoch_id(bank):
    return await bank.ledger.register_epoch("boot")


@pytest.fixture
async def journal_id(bank, epoch_id):
    journal_id = uuid.uuid4().bytes
    await bank.ledger.register_journal(journal_id, epoch_id)
    return journal_id


# --- lease ---------------------------------------------------------------------------------

LEASES = [  # (delta, expected, at_least) of successive requests -> what each changes
    ("up to the limit, not beyond", [(600, 0, 0, 600), (401, 600, 0, 0), (400, 600, 0, 400)]),
    ("as much as there is", [(600, 0, 0, 600), (600, 600, 1, 400), (1, 1000, 1, 0)]),
    ("no less than asked for", [(600, 0, 0, 600), (600, 600, 401, 0)]),
    ("only from what control believes", [(600, 0, 0, 600), (100, 500, 0, 0), (-100, 0, 0, 0)]),
    ("giving back", [(600, 0, 0, 600), (-600, 600, 0, -600), (1000, 0, 0, 1000)]),
    ("not more than there is", [(600, 0, 0, 600), (-601, 600, 0, 0)]),
    ("looking changes nothing", [(0, 0, 0, 0), (5, 0, 0, 5), (0, 5, 0, 0)]),
]


@pytest.mark.parametrize(
    ("steps"), [steps for _, steps in LEASES], ids=[name for name, _ in LEASES]
)
async def test_lease(bank, epoch_id, steps):
    committed = 0
    for delta, expected, at_least, changed in steps:
        outcome = await bank.lease(epoch_id, delta, expected, at_least=at_least)
        committed += changed
        assert (outcome.delta, outcome.committed) == (changed, committed)
        assert (outcome.granted, outcome.limit) == (committed, LIMIT)
    assert await bank.window() == (committed, 0)


async def test_two_epochs_share_a_window(bank, epoch_id):
    other = await bank.ledger.register_epoch("boot")
    assert (await bank.lease(epoch_id, 700)).delta == 700
    assert (await bank.lease(other, 700, at_least=1)).delta == 300
    assert await bank.leases() == {epoch_id: (700, 0), other: (300, 0)}


async def test_the_limit_in_force_decides(bank, epoch_id):
    await bank.lease(epoch_id, 800)
    await bank.set_limit(500)
    outcome = await bank.lease(epoch_id, 1, 800)
    assert (outcome.delta, outcome.limit, outcome.committed) == (0, 500, 800)
    assert (await bank.lease(epoch_id, -400, 800)).committed == 400
    assert (await bank.lease(epoch_id, 200, 400, at_least=1)).delta == 100


async def test_a_temporary_raise_counts(bank, epoch_id):
    await bank.lease(epoch_id, LIMIT)
    await bank.transactions.run(lambda c: c.execute(update(WindowRow).values(extra=50)))
    assert (await bank.lease(epoch_id, 60, LIMIT, at_least=1)).delta == 50


async def test_what_is_spent_cannot_be_given_back(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    await bank.drain(journal_id, epoch_id, 0, 1, settled=[bank.call(200, 120)])
    assert (await bank.lease(epoch_id, -381, 500)).delta == 0
    outcome = await bank.lease(epoch_id, -380, 500)
    assert (outcome.delta, outcome.granted, outcome.spent) == (-380, 120, 120)
    assert outcome.spent_total == 120


async def test_several_windows_at_once_each_on_its_own(bank, epoch_id):
    requests = [
        LeaseRequest(bank.tokens, 10, 0),
        LeaseRequest((999, 0), 10, 0),  # no such budget
        LeaseRequest(bank.usd, LIMIT + 1, 0),
    ]
    outcomes = {x.window: x.delta for x in await bank.ledger.lease(epoch_id, requests)}
    assert outcomes == {bank.usd: 0, bank.tokens: 10}


@pytest.mark.parametrize("known", [True, False])
async def test_no_lease_without_an_open_epoch(bank, epoch_id, known):
    await bank.lease(epoch_id, 100)
    assert await bank.ledger.close_epoch(epoch_id)
    with pytest.raises(EpochClosed):
        await bank.lease(epoch_id if known else 999, 100, 0)
    with pytest.raises(EpochClosed):
        await bank.ledger.register_journal(uuid.uuid4().bytes, epoch_id)


# --- drain ---------------------------------------------------------------------------------


async def test_rows_money_and_offset_move_together(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    hold, settle = bank.call(200, 120, tags={"k": "v"}, user="ann")
    drained = await bank.drain(journal_id, epoch_id, 0, 77, settled=[(hold, settle)])
    assert (drained.rows, drained.unbacked, drained.moved) == (1, 0, None)
    assert drained.leases == {bank.usd: LeaseState(500, 120)}
    offset = await bank.offset(journal_id)
    assert (offset.segment, offset.offset, offset.finished) == (0, 77, False)
    row = (await bank.rows())[hold.call_id]
    assert (row.cost_nano, row.hold_nano, row.ending) == (120, 200, "complete")
    assert (row.input_tokens, row.output_tokens, row.usage) == (12, 34, settle.usage)
    assert row.cost_items == [list(item) for item in settle.cost_items]
    assert (row.tags, row.flags) == ({"k": "v"}, 0)
    assert (row.charged_tokens, row.charged_requests) == (46, 1)
    users = await bank.read(select(User.id, User.name, User.source))
    assert users == [(row.user_id, "ann", "header")]


async def test_the_same_batch_again_does_nothing(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    calls = [bank.call(100, 10), bank.call(100, 20)]
    await bank.drain(journal_id, epoch_id, 0, 9, settled=calls)
    again = await bank.drain(journal_id, epoch_id, 0, 9, settled=calls)
    assert (again.rows, again.moved, again.finished) == (0, (0, 9), False)
    assert await bank.leases() == {epoch_id: (500, 30)}


async def test_rows_that_are_there_move_no_money_again(bank, epoch_id, journal_id):
    """A database whose offset is older than its rows, as after a partial restore."""
    await bank.lease(epoch_id, 500)
    first, second, third = bank.call(100, 10), bank.call(100, 20), bank.call(100, 30)
    await bank.drain(journal_id, epoch_id, 0, 9, settled=[first, second])
    drained = await bank.drain(journal_id, epoch_id, 9, 12, settled=[first, third, second])
    assert (drained.rows, drained.duplicates) == (1, 2)
    assert await bank.leases() == {epoch_id: (500, 60)}


async def test_several_journals_in_one_transaction(bank, epoch_id, journal_id):
    other = uuid.uuid4().bytes
    await bank.ledger.register_journal(other, epoch_id)
    await bank.lease(epoch_id, 500)
    await bank.drain(other, epoch_id, 0, 5)
    batches = [
        Batch(journal_id, epoch_id, (0, 0), (0, 4), [bank.call(100, 10)]),
        Batch(other, epoch_id, (0, 0), (0, 7), [bank.call(100, 20)]),
    ]
    done, left_out = await bank.ledger.drain(batches)
    assert (done.rows, left_out.moved) == (1, (0, 5))
    assert await bank.leases() == {epoch_id: (500, 10)}


BACKING = [  # lease, [(hold, cost)] -> granted, spent, overage
    ("within the hold", 500, [(100, 60)], (500, 60, 0)),
    ("the whole hold", 500, [(100, 100)], (500, 100, 0)),
    ("above the hold", 500, [(100, 130)], (530, 130, 30)),
    ("above the lease", 100, [(100, 80), (100, 50)], (130, 130, 30)),
    ("above hold and lease", 100, [(100, 150)], (150, 150, 50)),
    ("no lease at all", 0, [(100, 60)], (60, 60, 60)),
    ("one after the other", 100, [(40, 60), (90, 90)], (150, 150, 50)),
]


@pytest.mark.parametrize(
    ("leased", "calls", "expected"), [case[1:] for case in BACKING], ids=[c[0] for c in BACKING]
)
async def test_unbacked_money_is_booked_and_flagged(
    bank, epoch_id, journal_id, leased, calls, expected
):
    granted, spent, overage = expected
    if leased:
        await bank.lease(epoch_id, leased)
    settled = [bank.call(*call) for call in calls]
    drained = await bank.drain(journal_id, epoch_id, 0, 1, settled=settled)
    assert drained.unbacked == overage
    assert await bank.window() == (granted, overage)
    assert await bank.leases() == {epoch_id: (granted, spent)}
    flagged = [row for row in (await bank.rows()).values() if row.flags & FLAG_UNBACKED]
    assert bool(flagged) == (overage > 0)


async def test_a_call_admitted_without_money_is_unbacked_in_full(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    call = bank.call(100, 60, backed=False)
    drained = await bank.drain(journal_id, epoch_id, 0, 1, settled=[call])
    assert drained.unbacked == 60
    assert await bank.leases() == {epoch_id: (560, 60)}
    assert (await bank.rows())[call[0].call_id].flags & FLAG_UNBACKED


async def test_every_unit_is_charged_in_its_own(bank, epoch_id, journal_id):
    hold = bank.hold([(bank.usd, 200), (bank.tokens, 6196), (bank.requests, 1)])
    charges = [(bank.usd, 120), (bank.tokens, 46), (bank.requests, 1)]
    settle = a_settle(hold, charges=charges, cost_nano=120)
    requests = [LeaseRequest(window, amount, 0) for window, amount in hold.amounts]
    await bank.ledger.lease(epoch_id, requests)
    await bank.drain(journal_id, epoch_id, 0, 1, settled=[(hold, settle)])
    assert await bank.leases(bank.tokens) == {epoch_id: (6196, 46)}
    assert await bank.leases(bank.requests) == {epoch_id: (1, 1)}


async def test_a_call_without_budgets_has_a_row(bank, epoch_id, journal_id):
    hold = bank.hold()
    settle = a_settle(hold, cost_nano=5)
    await bank.drain(journal_id, epoch_id, 0, 1, settled=[(hold, settle)])
    assert (await bank.rows())[hold.call_id].charge_set_id is None


async def test_finishing_charges_open_holds_as_lost(bank, epoch_id, journal_id):
    hold = bank.hold([(bank.usd, 200), (bank.tokens, 6196), (bank.requests, 1)], priced_model="m")
    requests = [LeaseRequest(window, amount, 0) for window, amount in hold.amounts]
    await bank.ledger.lease(epoch_id, requests)
    await bank.drain(journal_id, epoch_id, 0, 3, lost=[hold], finish=True)
    row = (await bank.rows())[hold.call_id]
    assert (row.ending, row.usage_source, row.cost_nano) == ("lost", "estimated", 200)
    assert row.usage == hold.ceiling_usage
    assert (row.charged_tokens, row.charged_requests, row.price_id is None) == (6196, 1, False)
    assert (await bank.leases(bank.tokens))[epoch_id] == (6196, 6196)
    assert (await bank.offset(journal_id)).finished
    late = await bank.drain(journal_id, epoch_id, 3, 9, settled=[bank.call(100, 10)])
    assert (late.moved, late.finished, late.rows) == ((0, 3), True, 0)


# --- what a batch must not stop ------------------------------------------------------------


def _stranger(bank: Bank) -> Hold:
    return bank.hold([(bank.usd, 10)], key_id=999)


def _no_budget(bank: Bank) -> Hold:
    return bank.hold([((999, 0), 10)])


def _too_large(bank: Bank) -> Hold:
    return bank.hold([(bank.usd, 10)], client_retry=2**70)


@pytest.mark.parametrize("make", [_stranger, _no_budget, _too_large])
async def test_a_record_the_ledger_cannot_take_is_put_aside(bank, epoch_id, journal_id, make):
    await bank.lease(epoch_id, 500)
    bad = make(bank)
    good = [bank.call(100, 10), bank.call(100, 20)]
    settled = [good[0], (bad, a_settle(bad, 5)), good[1]]
    drained = await bank.drain(journal_id, epoch_id, 0, 8, settled=settled)
    assert (drained.rows, drained.dead) == (2, 1)
    assert bank.dead[-1][0] == bad
    assert bank.dead[-1][1]
    assert await bank.leases() == {epoch_id: (500, 30)}


async def test_a_customers_budget_that_a_restored_database_lacks_takes_its_calls(
    bank, epoch_id, journal_id
):
    template = DeclaredBudget(
        "team/acme/search", "usd", 1_000, "total", options={"each": "customer", "customers_max": 9}
    )
    await bank.transactions.run(lambda c: create_budget(c, template, 0))
    window = (id_of(identity_of_customer(identity_of(template), "c-1")), 0)
    calls = []
    for customer in ("c-1", "c-2"):  # of another one the budget is not
        hold = bank.hold([(window, 200)], tags={"tollkeeper.customer": customer})
        calls.append((hold, a_settle(hold, 120)))
    nobody = await bank.drain(journal_id, epoch_id, 0, 1, settled=calls[1:])
    assert (nobody.rows, nobody.dead) == (0, 1)
    drained = await bank.drain(journal_id, epoch_id, 1, 2, settled=calls[:1])
    assert (drained.rows, drained.dead) == (1, 0)
    assert await bank.window(window) == (120, 120)  # which no lease of this database backs


async def test_text_that_postgresql_refuses_is_kept_without_it(bank, epoch_id, journal_id):
    hold, settle = bank.call(100, 10, model="gpt\0five" + "x" * 300)
    drained = await bank.drain(journal_id, epoch_id, 0, 8, settled=[(hold, settle)])
    assert drained.rows == 1
    assert (await bank.rows())[hold.call_id].model.startswith("gpt")


# --- references ----------------------------------------------------------------------------


async def test_what_rows_refer_to_is_made_once(bank, epoch_id, journal_id):
    for start in range(3):
        calls = [bank.call(10, 1, user="ann"), bank.call(10, 1, user="bob")]
        await bank.drain(journal_id, epoch_id, start, start + 1, settled=calls)
    assert len(await bank.read(select(User.id))) == 2
    assert len(await bank.read(select(ChargeSet.id))) == 1
    assert len(await bank.read(select(ModelCost.id))) == 1
    assert len(await bank.read(select(PriceVersion.id))) == 1


async def test_a_price_version_nobody_remembers_is_named_all_the_same(bank, epoch_id, journal_id):
    hold = bank.hold(price_version="forgotten")
    settle = a_settle(hold, cost_nano=5)
    await bank.drain(journal_id, epoch_id, 0, 1, settled=[(hold, settle)])
    versions = await bank.read(select(PriceVersion.version, PriceVersion.source))
    assert versions == [("forgotten", "unknown")]


async def test_references_of_a_transaction_that_failed_are_made_again(bank, epoch_id, journal_id):
    real = bank.transactions.run

    async def fail(work):
        def then_fail(connection):
            work(connection)
            raise OSError("disk")

        return await real(then_fail)

    call = bank.call(10, 1, user="ann")
    bank.transactions.run = fail
    with pytest.raises(OSError, match="disk"):
        await bank.drain(journal_id, epoch_id, 0, 1, settled=[call])
    bank.transactions.run = real
    assert (await bank.drain(journal_id, epoch_id, 0, 1, settled=[call])).rows == 1


# --- epochs --------------------------------------------------------------------------------


async def test_closing_an_epoch_frees_what_it_did_not_spend(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    await bank.drain(journal_id, epoch_id, 0, 1, settled=[bank.call(100, 30)])
    assert not await bank.ledger.close_epoch(epoch_id)
    await bank.drain(journal_id, epoch_id, 1, 1, finish=True)
    assert await bank.ledger.close_epoch(epoch_id)
    assert await bank.window() == (30, 0)
    assert await bank.leases() == {epoch_id: (30, 30)}
    assert not await bank.ledger.close_epoch(epoch_id)


async def test_an_epoch_with_a_truncated_journal_keeps_its_money(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    await bank.drain(journal_id, epoch_id, 0, 1, finish=True, truncated=True)
    assert not await bank.ledger.close_epoch(epoch_id)
    assert await bank.window() == (500, 0)
    assert await bank.ledger.release_epoch(epoch_id)
    assert await bank.window() == (0, 0)


async def test_rows_after_a_release_are_unbacked(bank, epoch_id, journal_id):
    await bank.lease(epoch_id, 500)
    assert await bank.ledger.release_epoch(epoch_id)
    drained = await bank.drain(journal_id, epoch_id, 0, 1, settled=[bank.call(100, 30)])
    assert drained.unbacked == 30
    assert await bank.window() == (30, 30)


async def test_unseen_epochs_are_labelled_and_come_back(bank, epoch_id):
    await bank.transactions.run(lambda c: c.execute(update(Epoch).values(seen_at_ms=1)))
    assert await bank.ledger.mark_lost(60_000) == [epoch_id]
    assert await bank.epoch_state(epoch_id) == "lost"
    assert await bank.ledger.touch_epoch(epoch_id) > 1_700_000_000_000
    assert await bank.epoch_state(epoch_id) == "open"
    assert await bank.ledger.mark_lost(60_000) == []
    assert await bank.ledger.unclosed_epochs() == [(epoch_id, "boot")]


# --- corrections ---------------------------------------------------------------------------


def _correction(call_id: bytes, cost: int, tokens: int, row_id: bytes | None = None) -> Correction:
    return Correction(
        call_id=row_id or os.urandom(16),
        adjusts=call_id,
        at_ms=1_700_000_100_000,
        usage={"input_tokens": tokens},
        usage_source="reported",
        price_version="v",
        model="openai/gpt-5",
        cost_nano=cost,
        cost_items=[("input", tokens, cost * 10**9)],
    )


async def test_corrections_book_differences_once(bank, epoch_id, journal_id):
    hold = bank.hold([(bank.usd, 200), (bank.tokens, 6196), (bank.requests, 1)])
    requests = [LeaseRequest(window, amount, 0) for window, amount in hold.amounts]
    await bank.ledger.lease(epoch_id, requests)
    await bank.drain(journal_id, epoch_id, 0, 1, lost=[hold], finish=True)
    first = _correction(hold.call_id, 150, 100)
    assert await bank.ledger.adjust(first)
    assert not await bank.ledger.adjust(first)
    assert await bank.ledger.adjust(_correction(hold.call_id, 170, 120))
    assert (await bank.leases())[0] == (-30, -30)
    assert (await bank.leases(bank.tokens))[0] == (120 - 6196, 120 - 6196)
    assert (await bank.window())[0] == 170
    assert sum(row.cost_nano for row in (await bank.rows()).values()) == 170


async def test_a_correction_needs_its_call(bank, epoch_id):
    with pytest.raises(UnknownCall):
        await bank.ledger.adjust(_correction(b"x" * 16, 1, 1))


# --- outcomes ------------------------------------------------------------------------------


async def test_a_failed_commit_is_told_from_a_failed_statement(bank):
    def work(connection):
        def fail(_connection):
            raise OSError("connection lost")

        event.listen(connection, "commit", fail, once=True)

    with pytest.raises(OutcomeUnknown):
        await bank.transactions.run(work)
    assert await bank.ledger.register_epoch("boot")
