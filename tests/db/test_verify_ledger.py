"""What the ledger's own statements write verifies, whatever the endings."""

import itertools

import pytest
from sqlalchemy import select

from db.catalog import load_budgets, load_keys, sync_config
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.engine import open_engine
from db.journal_records import FLAG_CEILING_VIOLATION, FLAG_LEARNED, FLAG_UNBACKED
from db.ledger import Ledger
from db.ledger_types import Batch, LeaseRequest, PriceDescription
from db.models import UsageCost, Window
from db.transactions import open_transactions
from db.verify import verify
from pricing.calculator import ceiling_cost, cost
from pricing.usage import Usage
from tests.factories import NOW_MS, a_hold, a_price, a_settle, a_uuid7

JOURNAL = b"j" * 16
PRICE = a_price("openai", "gpt-5")
CEILING = Usage(input_tokens=2_000, output_tokens=1_000)
USED = Usage(input_tokens=1_000, output_tokens=100, cache_read_tokens=400)
WINDOWS = [(budget_id, 0) for budget_id in (1, 2, 3)]  # usd, tokens, requests
LIMITS = (10**9, 10**6, 100)
DECLARED = Declared(
    teams=(("acme", "search"),),
    keys=(DeclaredKey("prod", "ab" * 32, "acme", "search"),),
    budgets=tuple(
        DeclaredBudget("team/acme/search", unit, limit, "day")
        for unit, limit in zip(("usd", "tokens", "requests"), LIMITS, strict=True)
    ),
)


def amounts(usage, nano):
    return list(zip(WINDOWS, (nano, usage.total_tokens, 1), strict=True))


def hold(**fields):
    nano = ceiling_cost(CEILING, PRICE)
    return a_hold(
        a_uuid7(), amounts(CEILING, nano), key_id=1, organization_id=1, team_id=1, at_ms=NOW_MS,
        ceiling_nano=nano, ceiling_usage=CEILING.as_dict(), priced_model=PRICE.key, **fields,
    )  # fmt: skip


def settle(of, usage=USED, **fields):
    computed = cost(usage, PRICE)
    return a_settle(
        of, charges=amounts(usage, computed.nano), usage=usage.as_dict(),
        cost_nano=computed.nano, cost_items=computed.items, model=PRICE.key, **fields,
    )  # fmt: skip


def nothing(of):
    return a_settle(
        of, charges=[(window, 0) for window in WINDOWS], usage=None, usage_source="none",
        cost_nano=0, cost_items=[], model="", ending="unreachable",
    )  # fmt: skip


@pytest.fixture
async def prepared(engine):
    async with engine.begin() as connection:
        await connection.run_sync(sync_config, DECLARED, NOW_MS)
        (key,) = await connection.run_sync(load_keys)
        budgets = await connection.run_sync(load_budgets)
    assert (key.id, key.organization_id, key.team_id) == (1, 1, 1)
    assert [(budget.id, 0) for budget in budgets] == WINDOWS


@pytest.fixture
async def ledger(url, prepared):
    dead = []
    ledger = Ledger(
        open_transactions(url),
        host_id="host",
        describe_price=lambda version, model: PriceDescription(
            version, "0" * 64, "test", "2026-01-01", [], dict(PRICE.entry)
        ),
        dead_letter=lambda *letter: dead.append(letter),
        now_ms=lambda: NOW_MS,
    )
    yield ledger
    await ledger.close()
    assert not dead


class Life:
    """One control's life with one journal."""

    def __init__(self, ledger, epoch_id):
        self.ledger, self.epoch_id = ledger, epoch_id
        self._ends = itertools.count(1)
        self._start = (0, 0)

    async def drain(self, *settled, **fields):
        end = (0, next(self._ends))
        batch = Batch(JOURNAL, self.epoch_id, self._start, end, list(settled), **fields)
        self._start = end
        return await self.ledger.drain([batch])


@pytest.fixture
async def life(ledger):
    epoch_id = await ledger.register_epoch("boot")
    await ledger.register_journal(JOURNAL, epoch_id)
    requests = [
        LeaseRequest(window, limit // 2, 0) for window, limit in zip(WINDOWS, LIMITS, strict=True)
    ]
    await ledger.lease(epoch_id, requests)
    return Life(ledger, epoch_id)


async def test_leases_without_calls(engine, life):
    assert await verify(engine) == []


async def test_every_ending(engine, life):
    complete, cut, failed, lost = hold(), hold(), hold(), hold()
    settled = [
        (complete, settle(complete)),
        (cut, settle(cut, ending="cut")),
        (failed, nothing(failed)),
    ]
    await life.drain(*settled)
    await life.drain(lost=[lost], finish=True)
    assert await verify(engine) == []


async def test_closed_epoch(engine, life):
    call = hold()
    await life.drain((call, settle(call)), finish=True)
    assert await life.ledger.close_epoch(life.epoch_id)
    assert await verify(engine) == []


@pytest.mark.parametrize("flag", [FLAG_CEILING_VIOLATION, FLAG_LEARNED])
async def test_cost_above_its_hold(engine, life, flag):
    call = hold()
    dear = Usage(input_tokens=50_000, output_tokens=8_000)
    await life.drain((call, settle(call, dear, flags=flag)))
    assert await verify(engine) == []
    async with engine.connect() as connection:
        assert (await connection.execute(select(UsageCost.flags))).scalars().all() == [flag]
        usd, tokens, requests = (
            await connection.execute(select(Window.overage).order_by(Window.budget_id))
        ).scalars()
    assert (min(usd, tokens) > 0, requests) == (True, 0)


async def test_a_lost_call_that_a_soft_budget_held_less_for(engine, life):
    """Its row is charged what the strict one held; what the soft one lacks is overage."""
    call = hold()
    (soft, nano), *strict = call.amounts
    call.amounts = [(soft, nano // 10), *strict]
    await life.drain(lost=[call], finish=True)
    assert await verify(engine) == []
    async with engine.connect() as connection:
        row = (await connection.execute(select(UsageCost))).one()
        windows = select(Window.overage).order_by(Window.budget_id)
        overage = (await connection.execute(windows)).scalars().all()
    assert (row.cost_nano, row.flags) == (nano, FLAG_UNBACKED)
    assert overage == [nano - nano // 10, 0, 0]


async def test_calls_without_backing(engine, life):
    """More than all of the limit, admitted while the ledger was away."""
    calls = [hold(backed=False) for _ in range(LIMITS[2] + 5)]
    await life.drain(*((call, settle(call)) for call in calls))
    assert await verify(engine) == []


async def test_rows_after_the_epoch_was_released(engine, life):
    call = hold()
    assert await life.ledger.release_epoch(life.epoch_id)
    await life.drain((call, settle(call)))
    assert await verify(engine) == []


async def test_records_drained_twice(engine, life):
    call = hold()
    await life.drain((call, settle(call)))
    again = await life.drain((call, settle(call)))
    assert [each.rows for each in again] == [0]
    assert await verify(engine) == []


async def test_money_given_back(engine, life):
    window, limit = WINDOWS[0], LIMITS[0]
    await life.ledger.lease(life.epoch_id, [LeaseRequest(window, -limit // 4, limit // 2)])
    assert await verify(engine) == []


async def test_a_reader_of_a_file_in_use(url, engine, life):
    call = hold()
    await life.drain((call, settle(call)))
    other = open_engine(url, read_only=True)
    assert await verify(other) == []
    await other.dispose()
