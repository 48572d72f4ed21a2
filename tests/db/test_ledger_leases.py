"""LEASE among hosts: whose turn it is, and a limit that is lowered at that very moment."""

import asyncio

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from db.catalog_budgets import set_limit
from db.ledger_types import LeaseRequest, OpenTicket
from db.models import Epoch, Lease
from tests.db.bank import LIMIT, Bank

HALF = LIMIT // 2


@pytest.fixture
async def bank(url):
    bank = await Bank.open(url)
    yield bank
    await bank.check()
    await bank.close()


class Hosts:
    """Two epochs that lease from the budget in USD."""

    def __init__(self, bank: Bank, epochs: list[int]) -> None:
        self.bank, self.epochs = bank, epochs
        self.granted = dict.fromkeys(epochs, 0)
        self.ignored: set[OpenTicket] = set()

    async def lease(self, epoch_id: int, delta: int, ticket: int = 0, **more):
        expected = self.granted[epoch_id]
        request = LeaseRequest(self.bank.usd, delta, expected, 1, ticket=ticket, **more)
        (outcome,) = await self.bank.ledger.lease(epoch_id, [request], self.ignored)
        self.granted[epoch_id] = outcome.granted
        return outcome

    async def publish(self, epoch_id: int, ticket: int):
        return await self.lease(epoch_id, 0, ticket, wanted=7 if ticket else 0, publish=True)


@pytest.fixture
async def hosts(bank):
    return Hosts(bank, [await bank.ledger.register_epoch("boot") for _ in range(3)])


async def test_nobody_leases_ahead_while_another_host_waits(hosts):
    one, two, _ = hosts.epochs
    await hosts.publish(one, 4)
    outcome = await hosts.lease(two, 100)
    assert (outcome.delta, outcome.first, outcome.newest) == (0, OpenTicket(4, one), 4)
    assert (await hosts.lease(one, 100, 4)).delta == 100
    await hosts.publish(one, 0)
    assert (await hosts.lease(two, 100)).delta == 100


async def test_the_oldest_of_all_hosts_is_served(hosts):
    """Of two with the same number the one of the older life."""
    one, two, three = hosts.epochs
    await hosts.publish(one, 5)
    await hosts.publish(two, 4)
    await hosts.publish(three, 5)
    assert (await hosts.lease(one, 10, 5)).first == OpenTicket(4, two)
    assert (await hosts.lease(three, 10, 5)).delta == 0
    assert (await hosts.lease(two, 10, 4)).delta == 10
    await hosts.publish(two, 0)
    assert (await hosts.lease(three, 10, 5)).first == OpenTicket(5, one)
    assert (await hosts.lease(one, 10, 5)).delta == 10


async def test_whoever_waits_money_can_be_given_back(hosts):
    one, two, _ = hosts.epochs
    await hosts.lease(two, LIMIT)
    await hosts.publish(one, 1)
    assert (await hosts.lease(two, -HALF)).delta == -HALF
    assert (await hosts.lease(one, LIMIT, 1)).delta == HALF


async def test_a_ticket_that_is_ignored_stops_nobody(hosts):
    one, two, _ = hosts.epochs
    await hosts.publish(one, 4)
    hosts.ignored.add(OpenTicket(4, one))
    outcome = await hosts.lease(two, 100)
    assert (outcome.delta, outcome.first, outcome.newest) == (100, None, 4)
    await hosts.publish(one, 6)
    assert (await hosts.lease(two, 100)).delta == 0


async def test_tickets_are_read_by_window_and_end_with_their_epoch(hosts):
    one, two, three = hosts.epochs
    ledger, window = hosts.bank.ledger, hosts.bank.usd
    await hosts.publish(one, 4)
    await hosts.publish(two, 9)
    assert set(await ledger.tickets(three)) == {window}
    assert sorted((await ledger.tickets(three))[window]) == [OpenTicket(4, one), OpenTicket(9, two)]
    assert await ledger.tickets(one) == {window: [OpenTicket(9, two)]}
    lost = update(Epoch).where(Epoch.id == two).values(state="lost")
    await hosts.bank.transactions.run(lambda c: c.execute(lost))
    assert await ledger.tickets(one) == {}
    assert await ledger.close_epoch(one)
    rows = await hosts.bank.read(select(Lease.ticket, Lease.wanted).order_by(Lease.epoch_id))
    assert rows == [(0, 0), (9, 7)]


async def test_without_other_hosts_tickets_are_not_looked_at(hosts):
    one, two, _ = hosts.epochs
    await hosts.publish(one, 4)
    assert (await hosts.bank.lease(two, 100)).delta == 100


async def test_nothing_is_leased_by_a_limit_that_is_being_lowered(
    hosts, engine: AsyncEngine, url: str
):
    """LEASE waits for the end of that transaction, and goes by what it has set."""
    if url.startswith("sqlite"):
        pytest.skip("one transaction at a time")
    one, budget_id = hosts.epochs[0], hosts.bank.usd[0]
    await hosts.lease(one, 100)
    async with engine.connect() as connection:
        await connection.run_sync(set_limit, budget_id, 300)
        leasing = asyncio.create_task(hosts.lease(one, LIMIT - 100))
        done, _ = await asyncio.wait([leasing], timeout=0.2)
        assert not done
        await connection.commit()
    outcome = await leasing
    assert (outcome.delta, outcome.limit, outcome.committed) == (200, 300, 300)
