"""Transactions that meet another one are made again; what was undone is not half done."""

import asyncio

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from db.engine import open_engine
from db.ledger_types import OutcomeUnknown
from db.models import Lease, Window
from db.transactions import ATTEMPTS_MAX, is_conflict, is_retryable, with_retries
from tests.db.bank import Bank

DEADLOCK_TIMEOUT = "50ms"  # until the server looks whether who waits, waits in a circle


class Refused(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate):
        self.sqlstate = sqlstate


def refused(sqlstate):
    return DBAPIError("UPDATE", {}, Refused(sqlstate))


@pytest.mark.parametrize(
    ("error", "conflict", "retryable"),
    [
        (refused("40P01"), True, True),
        (refused("40001"), True, True),
        (refused("55P03"), False, True),
        (refused("23505"), False, False),
        (OperationalError("SELECT", {}, Refused(None)), False, True),
        (OutcomeUnknown("commit failed"), False, True),
        (ValueError(), False, False),
    ],
)
def test_what_passes(error, conflict, retryable):
    assert (is_conflict(error), is_retryable(error)) == (conflict, retryable)


async def test_retries_end():
    attempts = []

    async def conflict():
        attempts.append(1)
        raise refused("40001")

    with pytest.raises(DBAPIError):
        await with_retries(conflict, lambda error: len(attempts) < 2)
    assert len(attempts) == 2 < ATTEMPTS_MAX


async def test_a_lease_that_ends_in_a_deadlock_is_made_again(url):
    """Somebody locks the window first and the lease then, against the order of the ledger."""
    if not url.startswith("postgresql"):
        pytest.skip("SQLite has one writer at a time")
    name = url.partition("@/")[2].partition("?")[0]
    engine = open_engine(url)
    async with engine.begin() as connection:
        await connection.execute(
            text(f"ALTER DATABASE {name} SET deadlock_timeout = '{DEADLOCK_TIMEOUT}'")
        )
    met = []

    class Watched:
        """The ledger's transactions, and what undid them."""

        def __init__(self, transactions):
            self._transactions = transactions
            self.dialect = transactions.dialect
            self.close = transactions.close

        async def run(self, work):
            try:
                return await self._transactions.run(work)
            except DBAPIError as exc:
                met.append(exc.orig.sqlstate)
                raise

    bank = await Bank.open(url, Watched)
    epoch_id = await bank.ledger.register_epoch("boot")
    assert (await bank.lease(epoch_id, 10)).delta == 10
    async with engine.begin() as other:
        # The ledger is to be the one that finds the circle, and gives way.
        await other.execute(text("SET LOCAL deadlock_timeout = '1min'"))
        await other.execute(select(Window.id).with_for_update())
        leasing = asyncio.create_task(bank.lease(epoch_id, 5, expected=10))
        await _somebody_waits(other)
        await other.execute(select(Lease.granted).with_for_update())
    outcome = await leasing
    assert (outcome.delta, outcome.granted) == (5, 15)
    assert met == ["40P01"]
    await bank.check()
    await bank.close()
    await engine.dispose()


async def _somebody_waits(connection):
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while not (await connection.execute(query)).scalar_one():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
