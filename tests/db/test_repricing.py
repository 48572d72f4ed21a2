"""Repricing: what changes is found, booked once, and verifies; the same version changes nothing."""

import asyncio
import itertools
import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from db import repricing, repricing_read
from db.catalog import load_budgets, load_keys, sync_config
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.engine import open_engine, reader
from db.journal_records import FLAG_REPORTED_COST, FLAG_UNPRICED
from db.ledger import Ledger
from db.ledger_types import Batch, LeaseRequest, OutcomeUnknown
from db.models import CostAdjustment, Lease, Repricing, UsageCost, Window
from db.reports import calls, grouped
from db.repricing import Repricer, Wanted
from db.repricing_prices import NewPrices, Target
from db.repricing_read import Selection, StoredCall, read_page
from db.transactions import open_transactions
from db.verify import verify
from pricing.book import Overlay, PriceBook
from pricing.calculator import ceiling_cost, cost
from pricing.usage import Usage
from tests.factories import NOW_MS, a_hold, a_settle, a_table, a_uuid7, an_entry

JOURNAL = b"j" * 16
WINDOWS = [(1, 0), (2, 0)]  # usd, tokens
DECLARED = Declared(
    teams=(("acme", "search"),),
    keys=(DeclaredKey("prod", "ab" * 32, "acme", "search"),),
    budgets=(
        DeclaredBudget("team/acme/search", "usd", 10**15, "day"),
        DeclaredBudget("team/acme/search", "tokens", 10**12, "day"),
    ),
)
MODELS = {
    "model-1": an_entry(),
    "model-2": an_entry(
        input_cost_per_token_above_200k_tokens="0.000004",
        output_cost_per_token_priority="0.00003",
        cache_read_input_token_cost="0.0000001",
        search_context_cost_per_query={"search_context_size_medium": "0.01"},
    ),
}
DEARER = {name: an_entry(input_cost_per_token="0.000002") for name in MODELS}
FLAT = 5 * 10**12  # atto-USD per token of a model without a price
USED = Usage(input_tokens=1_000, output_tokens=100)
CEILING = Usage(input_tokens=2_000, output_tokens=1_000)
LATER = NOW_MS + 10_000_000


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tables")

    def target(table_id, models, **options):
        table = a_table(directory, {("openai", k): e for k, e in models.items()}, table_id)
        return Target(PriceBook(table, **options), table.info)

    more = DEARER | {"model-3": an_entry()}
    return {
        "old": target("old", MODELS),
        "ceiling": target("old", MODELS, unpriced_atto_per_token=FLAT),
        "new": target("new", more),
        "less": target("less", {"model-1": an_entry(input_cost_per_token="0.0000001")}),
    }


class Shop:
    """A ledger with calls in it, drained as control does."""

    def __init__(self, url):
        self.url = url
        self.engine = open_engine(url)
        self.describe = lambda version, key: None
        self.ledger = Ledger(
            open_transactions(url),
            host_id="host",
            describe_price=self._describe,
            dead_letter=lambda *letter: pytest.fail(f"dead letter: {letter[-1]}"),
            now_ms=lambda: NOW_MS,
        )
        self.ends = itertools.count(1)
        self.start = (0, 0)

    def _describe(self, version, key):
        return self.describe(version, key)

    async def open(self):
        async with self.engine.begin() as connection:
            await connection.run_sync(sync_config, DECLARED, NOW_MS)
            assert len(await connection.run_sync(load_keys)) == 1
            budgets = await connection.run_sync(load_budgets)
        assert [(budget.id, 0) for budget in budgets] == WINDOWS
        self.epoch_id = await self.ledger.register_epoch("boot")
        await self.ledger.register_journal(JOURNAL, self.epoch_id)
        await self.ledger.lease(self.epoch_id, [LeaseRequest(w, 10**11, 0) for w in WINDOWS])
        return self

    async def close(self):
        await self.ledger.close()
        await self.engine.dispose()

    async def drain(self, *settled, **fields):
        end = (0, next(self.ends))
        batch = Batch(JOURNAL, self.epoch_id, self.start, end, list(settled), **fields)
        self.start = end
        await self.ledger.drain([batch])

    async def sell(self, target, usages, model="model-1", at_ms=NOW_MS, lost=False, **fields):
        """Calls with these usages, at a version's prices. Returns their ids."""
        self.describe = lambda version, key: target.described(
            target.book.quote(*key.split("/", 1)).entry
        )
        price = target.book.quote("openai", model)
        calls, holds = [], []
        for usage in usages:
            hold = self.hold(target, price, model, at_ms)
            holds.append(hold)
            computed = cost(usage, price, at_s=at_ms / 1000)
            values = {"cost_nano": computed.nano, "cost_items": computed.items} | fields
            amounts = zip(WINDOWS, (values["cost_nano"], usage.total_tokens), strict=True)
            settle = a_settle(
                hold, charges=list(amounts), usage=usage.as_dict(), model=price.key,
                price_version=target.version, **values,
            )  # fmt: skip
            calls.append((hold, settle))
        if lost:
            await self.drain(lost=holds)
        else:
            await self.drain(*calls)
        return [hold.call_id for hold in holds]

    def hold(self, target, price, model, at_ms):
        nano = ceiling_cost(CEILING, price)
        amounts = list(zip(WINDOWS, (10 * nano, 10**7), strict=True))
        return a_hold(
            a_uuid7(at_ms), amounts, key_id=1, organization_id=1, team_id=1, at_ms=at_ms,
            ceiling_nano=nano, ceiling_usage=CEILING.as_dict(), priced_model=price.key,
            model=model, price_version=target.version,
        )  # fmt: skip

    async def repricer(self, target, *, restate=False, model="*", since=None, until=LATER):
        async with reader(self.engine).connect() as connection:
            prices = await NewPrices.load(connection, target)
        self.describe = prices.describe
        return Repricer(self.engine, prices, Wanted(Selection(since, until), restate, model))

    async def reprice(self, target, words="all", **options):
        repricer = await self.repricer(target, **options)
        return await repricer.apply(self.ledger, {"words": words})

    async def diff(self, target, **options):
        found = await (await self.repricer(target, **options)).diff()
        return {model: sums for (_, model), sums in found.sums.items()}

    async def read(self, query):
        async with reader(self.engine).connect() as connection:
            return (await connection.execute(query)).all()

    async def window(self, n=0):
        """(committed, charged by adjustments)."""
        (row,) = await self.read(
            select(Window.committed, Window.id).where(Window.budget_id == WINDOWS[n][0])
        )
        query = select(Lease.granted, Lease.spent)
        leases = await self.read(query.where(Lease.window_id == row.id, Lease.epoch_id == 0))
        assert all(lease.granted == lease.spent for lease in leases)
        return row.committed, sum(lease.spent for lease in leases)

    async def total(self):
        return (await self.read(select(func.sum(UsageCost.cost_nano))))[0][0]

    async def count(self, model):
        return (await self.read(select(func.count()).select_from(model)))[0][0]


@pytest.fixture
async def shop(url):
    shop = await Shop(url).open()
    yield shop
    await shop.close()


def dearer(calls):
    """What calls with `USED` cost more at the new version: 1,000 nano-USD per input token."""
    return calls * USED.input_tokens * 1_000


# --- the diff ------------------------------------------------------------------------------


async def test_a_diff_by_team_and_model_changes_nothing(shop, targets):
    await shop.sell(targets["old"], [USED] * 3)
    await shop.sell(targets["old"], [USED], "model-2")
    found = await shop.diff(targets["new"])
    assert {model: (s.calls, s.changed) for model, s in found.items()} == {
        "model-1": (3, 3),
        "model-2": (1, 1),
    }
    sums = found["model-1"]
    assert (sums.before_nano, sums.after_nano) == (6_000_000, 6_000_000 + dearer(3))
    assert (await shop.count(CostAdjustment), await shop.count(Repricing)) == (0, 0)


async def test_only_calls_that_are_asked_for(shop, targets):
    await shop.sell(targets["old"], [USED], at_ms=NOW_MS - 1)
    await shop.sell(targets["old"], [USED] * 2)
    await shop.sell(targets["old"], [USED] * 4, at_ms=LATER)
    await shop.sell(targets["old"], [USED] * 8, "model-2")
    found = await shop.diff(targets["new"], since=NOW_MS, model="*-1")
    assert {model: sums.calls for model, sums in found.items()} == {"model-1": 2}
    assert await shop.reprice(targets["new"], since=NOW_MS, model="*-1") == (2, dearer(2))


async def test_calls_the_version_has_no_price_for_stay(shop, targets):
    await shop.sell(targets["old"], [USED], "model-2")
    sums = (await shop.diff(targets["less"]))["model-2"]
    assert (sums.not_priced, sums.changed) == (1, 0)
    assert await shop.reprice(targets["less"]) == (0, 0)


# --- adjustments ---------------------------------------------------------------------------


@pytest.mark.parametrize("restate", [False, True])
async def test_adjustments_name_both_versions_and_budgets_follow_if_told_to(shop, targets, restate):
    await shop.sell(targets["old"], [USED])
    before = await shop.window(), await shop.window(1)
    assert await shop.reprice(targets["new"], restate=restate) == (1, dearer(1))
    charged = dearer(1) if restate else 0
    assert await shop.window() == (before[0][0] + charged, charged)
    assert await shop.window(1) == before[1]
    assert await verify(shop.engine) == []
    async with reader(shop.engine).connect() as connection:
        original, adjustment = [row async for row in calls(connection)]
        (sums,) = await grouped(connection, ["team"])
    assert (original["cost_usd"], original["price_version"]) == ("0.002", "old")
    assert adjustment["adjusts"] == original["request_id"]
    assert adjustment["price_version"] == "new"
    assert adjustment["previous_price_version"] == "old"
    assert (adjustment["cost_usd"], adjustment["at"]) == ("0.001", original["at"])
    assert (sums["calls"], sums["cost_usd"], sums["original_usd"], sums["adjustment_usd"]) == (
        1, "0.003", "0.002", "0.001",
    )  # fmt: skip


async def test_a_second_run_changes_nothing(shop, targets):
    await shop.sell(targets["old"], [USED] * 3)
    assert (await shop.reprice(targets["new"])).calls == 3
    assert await shop.reprice(targets["new"]) == (0, 0)
    assert (await shop.diff(targets["new"]))["model-1"].changed == 0
    assert await shop.count(CostAdjustment) == 3


async def test_back_again(shop, targets):
    await shop.sell(targets["old"], [USED] * 2)
    before = await shop.total(), await shop.window()
    await shop.reprice(targets["new"], restate=True)
    assert await shop.reprice(targets["old"], restate=True) == (2, -dearer(2))
    assert (await shop.total(), await shop.window()) == before
    assert await verify(shop.engine) == []


async def test_what_was_kept_out_of_budgets_is_restated_later(shop, targets):
    await shop.sell(targets["old"], [USED] * 2)
    committed, _ = await shop.window()
    await shop.reprice(targets["new"])
    assert await shop.reprice(targets["less"], restate=True) == (2, -dearer(2) - 1_800_000)
    assert await shop.window() == (committed - 1_800_000, -1_800_000)
    assert await verify(shop.engine) == []
    await shop.reprice(targets["new"])
    assert await shop.reprice(targets["new"], restate=True) == (2, 0)
    assert await shop.window() == (committed + dearer(2), dearer(2))
    assert await verify(shop.engine) == []


async def test_room_that_an_adjustment_made_may_be_leased_before_the_next(shop, targets):
    """I1a: one downwards, a lease up to the limit, one upwards."""
    await shop.sell(targets["new"], [USED] * 2)
    await shop.reprice(targets["old"], restate=True)
    committed, _ = await shop.window()
    room = LeaseRequest(WINDOWS[0], 10**15 - committed, 10**11)
    (outcome,) = await shop.ledger.lease(shop.epoch_id, [room])
    assert outcome.delta == room.delta
    await shop.reprice(targets["new"], restate=True)
    assert (await shop.window())[0] == 10**15 + dearer(2)
    assert await verify(shop.engine) == []


async def test_lost_calls_are_priced_at_their_ceiling(shop, targets):
    await shop.sell(targets["old"], [USED], lost=True)
    assert (await shop.diff(targets["new"]))["model-1"].estimated == 1
    more = CEILING.input_tokens * 1_000
    assert await shop.reprice(targets["new"], restate=True) == (1, more)
    assert await verify(shop.engine) == []


async def test_unpriced_calls_are_found_and_corrected(shop, targets):
    await shop.sell(targets["ceiling"], [USED], "model-3", flags=FLAG_UNPRICED)
    sums = (await shop.diff(targets["new"]))["model-3"]
    assert (sums.unpriced, sums.before_nano, sums.after_nano) == (1, 5_500_000, 2_000_000)
    await shop.reprice(targets["new"], restate=True)
    assert await verify(shop.engine) == []
    assert (await shop.diff(targets["new"]))["model-3"].unpriced == 0


async def test_calls_charged_as_the_provider_reported_stay(shop, targets):
    usage = replace(USED, provider_cost_nano=7)
    figure = {"cost_nano": 7, "cost_items": [("provider_figure", 7, 10**9)]}
    await shop.sell(
        targets["old"], [usage], flags=FLAG_REPORTED_COST, priced_nano=2_000_000, **figure
    )
    sums = (await shop.diff(targets["new"]))["model-1"]
    assert (sums.as_reported, sums.changed, sums.not_priced) == (1, 0, 0)
    assert await shop.reprice(targets["new"]) == (0, 0)
    assert await verify(shop.engine) == []


OF_FIGURES = {
    "cost": "cost_nano = 8, charge_set_id = NULL",
    "items": "cost_items = '[]'",
    "figure": "provider_cost_nano = 6",
    "drift": "drift_nano = 0",
    "flag": "flags = 0",
}


@pytest.mark.parametrize("name", OF_FIGURES)
async def test_a_damaged_row_charged_as_reported_is_found(shop, targets, name):
    usage = replace(USED, provider_cost_nano=7)
    figure = {"cost_nano": 7, "cost_items": [("provider_figure", 7, 10**9)]}
    await shop.sell(
        targets["old"], [usage], flags=FLAG_REPORTED_COST, priced_nano=2_000_000, **figure
    )
    assert await verify(shop.engine) == []
    async with shop.engine.begin() as connection:
        await connection.execute(text(f"UPDATE ai_usage_costs SET {OF_FIGURES[name]}"))
    assert "I5" in {finding.invariant for finding in await verify(shop.engine)}


async def test_drift_follows_the_price(shop, targets):
    await shop.sell(targets["old"], [replace(USED, provider_cost_nano=3_000_000)])
    async with reader(shop.engine).connect() as connection:
        (sums,) = await grouped(connection, ["team"])
    assert (sums["provider_cost_usd"], sums["drift_usd"]) == ("0.003", "0.001")
    await shop.reprice(targets["new"])
    async with reader(shop.engine).connect() as connection:
        (sums,) = await grouped(connection, ["team"])
    assert (sums["provider_cost_usd"], sums["drift_usd"]) == ("0.003", "0")
    assert await verify(shop.engine) == []


async def test_passes_at_other_models_follow_the_version_too(shop, targets):
    used = replace(USED, passes=(("model-2", Usage(input_tokens=10)),))
    price = targets["old"].book.quote("openai", "model-1")
    other = targets["old"].book.quote
    computed = cost(used, price, lambda model: other("openai", model), at_s=NOW_MS / 1000)
    await shop.sell(targets["old"], [used], cost_nano=computed.nano, cost_items=computed.items)
    assert await shop.reprice(targets["new"]) == (1, dearer(1) + 10 * 1_000)
    assert await verify(shop.engine) == []


async def test_an_overlay_on_the_name_requested_counts(shop, targets, tmp_path):
    table = a_table(tmp_path, {("openai", "model-1"): an_entry()}, "half")
    overlays = [Overlay(model="model-1", discount_percent="50")]
    half = Target(PriceBook(table, overlays), table.info)
    await shop.sell(targets["old"], [USED])
    assert await shop.reprice(half) == (1, -1_000_000)
    assert await verify(shop.engine) == []


async def test_a_team_is_repriced_with_its_own_overlays(shop, targets, tmp_path):
    table = a_table(tmp_path, {("openai", "model-1"): an_entry()}, "teams")
    overlays = [
        Overlay(discount_percent="90", team="other/*"),
        Overlay(discount_percent="50", team="acme/search"),
    ]
    target = Target(PriceBook(table, overlays), table.info)
    await shop.sell(targets["old"], [USED])
    assert await shop.reprice(target) == (1, -1_000_000)
    assert await shop.reprice(target, "again") == (0, 0)
    assert await verify(shop.engine) == []
    # Calls that were priced for the team already, and back to the price of everybody.
    own = Target(target.book.for_team("acme", "search"), table.info)
    shop.describe = lambda version, key: target.described(target.book.by_key(key).entry)
    await shop.drain(*sold(shop, own))
    assert await shop.reprice(target, "theirs") == (0, 0)
    assert await verify(shop.engine) == []
    assert await shop.reprice(targets["old"], "back") == (2, 2_000_000)
    assert await verify(shop.engine) == []


def sold(shop, target):
    """One call of `USED` at a version's price."""
    price = target.book.quote("openai", "model-1")
    hold = shop.hold(target, price, "model-1", NOW_MS)
    computed = cost(USED, price)
    amounts = zip(WINDOWS, (computed.nano, USED.total_tokens), strict=True)
    settle = a_settle(
        hold, charges=list(amounts), usage=USED.as_dict(), model=price.key,
        price_version=target.version, cost_nano=computed.nano, cost_items=computed.items,
    )  # fmt: skip
    return [(hold, settle)]


# --- interrupted ---------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("booked", [False, True])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_killed_run_goes_on_where_it_was(shop, targets, monkeypatch, after, booked):
    monkeypatch.setattr(repricing_read, "PAGE_CALLS", 3)
    monkeypatch.setattr(repricing, "BOOKED_AT_ONCE", 2)
    await shop.sell(targets["old"], [USED] * 10)
    real, calls = shop.ledger.reprice, itertools.count()

    async def dying(*arguments):
        dies = next(calls) == after
        result = None if dies and not booked else await real(*arguments)
        if dies:
            raise Killed
        return result

    monkeypatch.setattr(shop.ledger, "reprice", dying)
    with pytest.raises(Killed):
        await shop.reprice(targets["new"], restate=True, until=LATER)
    monkeypatch.setattr(shop.ledger, "reprice", real)
    assert await verify(shop.engine) == []
    # Asked for again: by the same words, though they mean a later time by now.
    assert await shop.reprice(targets["new"], restate=True, until=LATER + 9) == (10, dearer(10))
    assert (await shop.window())[1] == dearer(10)
    assert await shop.count(Repricing) == 1
    assert await verify(shop.engine) == []
    assert await shop.reprice(targets["new"], restate=True) == (0, 0)


async def test_other_words_are_another_run(shop, targets, monkeypatch):
    await shop.sell(targets["old"], [USED])

    async def dying(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shop.ledger, "reprice", dying)
        with pytest.raises(Killed):
            await shop.reprice(targets["new"], words="these")
    assert (await shop.reprice(targets["new"], words="those")).calls == 1
    assert (await shop.reprice(targets["new"], words="these")).calls == 0
    assert await shop.count(Repricing) == 2


async def test_a_commit_of_unknown_outcome_is_repeated(shop, targets, monkeypatch):
    monkeypatch.setattr(repricing, "WAIT_INITIAL_S", 0)
    monkeypatch.setattr(repricing, "WAIT_MAX_S", 0)
    await shop.sell(targets["old"], [USED] * 2)
    real, failures = shop.ledger.reprice, iter([True])

    async def unsure(*arguments):
        result = await real(*arguments)
        if next(failures, False):
            raise OutcomeUnknown("commit failed")
        return result

    monkeypatch.setattr(shop.ledger, "reprice", unsure)
    await shop.reprice(targets["new"], restate=True)
    assert (await shop.window())[1] == dearer(2)
    assert await verify(shop.engine) == []


# --- pages ---------------------------------------------------------------------------------


async def test_pages_follow_each_other_in_the_order_of_time(shop, targets, monkeypatch):
    monkeypatch.setattr(repricing_read, "PAGE_CALLS", 4)
    for at_ms in (NOW_MS + 5, NOW_MS, NOW_MS, NOW_MS + 9, NOW_MS):
        await shop.sell(targets["old"], [USED] * 3, at_ms=at_ms)
    seen = []
    found = await (await shop.repricer(targets["new"])).diff(lambda *done: seen.append(done))
    assert sum(sums.calls for sums in found.sums.values()) == 15
    assert seen == [(0, 15), (4, 15), (8, 15), (12, 15), (15, 15)]


async def test_a_page_is_found_by_its_index(shop, targets):
    if shop.engine.dialect.name == "postgresql":
        pytest.skip("with few rows PostgreSQL reads a table whole")
    await shop.sell(targets["old"], [USED] * 3)
    statements = []
    first = await read_page(shop.engine, Selection(0, LATER), None)
    last = repricing_read.Read(first[0].at_ms, first[0].call_id)
    query = repricing_read.page_query(Selection(0, LATER), last)
    sql = query.compile(shop.engine.sync_engine, compile_kwargs={"literal_binds": False})
    async with reader(shop.engine).connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        cursor = await driver.execute(f"EXPLAIN QUERY PLAN {sql}", list(sql.params.values()))
        statements = [row[-1] for row in await cursor.fetchall()]
    assert any("USING INDEX ix_ai_usage_costs_at (at_ms>?" in line for line in statements)
    assert not any("SCAN" in line for line in statements)


# --- the same version changes nothing -------------------------------------------------------

counts = st.integers(0, 300_000)
usages = st.builds(
    Usage,
    input_tokens=st.integers(200_000, 500_000),
    output_tokens=counts,
    cache_read_tokens=st.integers(0, 100_000),
    units=st.sampled_from([{}, {"web_search": 2}]),
    service_tier=st.sampled_from(["", "priority", "flex", "batch"]),
)


@given(usage=usages, model=st.sampled_from(list(MODELS)), lost=st.booleans(), at_ms=counts)
def test_a_call_costs_the_same_at_its_own_version(targets, usage, model, lost, at_ms):
    target = targets["old"]
    price = target.book.quote("openai", model)
    nano = ceiling_cost(usage, price) if lost else cost(usage, price, at_s=at_ms / 1000).nano
    call = StoredCall(
        b"c", at_ms, 1, None, "openai", model, "lost" if lost else "complete", "reported",
        None, nano, 0, json.dumps(usage.as_dict()),
    )  # fmt: skip
    new = NewPrices(target, {}, lambda provider: provider).cost(call)
    assert new is not None
    assert new.nano == nano


@settings(max_examples=15)
@given(
    sold=st.lists(
        st.tuples(
            st.lists(usages, min_size=1, max_size=3),
            st.sampled_from([*MODELS, "model-3"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    restate=st.booleans(),
)
def test_repricing_with_the_same_version_changes_nothing(
    migrated_sqlite, tmp_path_factory, targets, sold, restate
):
    path = tmp_path_factory.mktemp("same") / "ledger.db"
    shutil.copy(migrated_sqlite, path)

    async def run():
        shop = await Shop(f"sqlite+aiosqlite:///{path}").open()
        try:
            for used, model, lost in sold:
                flags = FLAG_UNPRICED if model == "model-3" else 0
                await shop.sell(targets["ceiling"], used, model, lost=lost, flags=flags | 4)
            before = await shop.total(), await shop.window()
            diff = await shop.diff(targets["ceiling"])
            assert not any(sums.changed for sums in diff.values())
            assert await shop.reprice(targets["ceiling"], restate=restate) == (0, 0)
            assert (await shop.total(), await shop.window()) == before
            assert await shop.count(CostAdjustment) == 0
            # There and back again: every call is what it was.
            await shop.reprice(targets["new"], restate=restate)
            await shop.reprice(targets["ceiling"], restate=restate)
            assert await shop.total() == before[0]
            assert await verify(shop.engine) == []
        finally:
            await shop.close()

    asyncio.run(run())


# --- verification of adjustments -----------------------------------------------------------

DAMAGES = {
    "to": ("UPDATE ai_cost_adjustments SET to_price_id = from_price_id", "I5"),
    "from": ("UPDATE ai_cost_adjustments SET from_price_id = to_price_id", "I5"),
    "unnamed": ("DELETE FROM ai_cost_adjustments", "I5"),
    "version": ("UPDATE ai_repricings SET price_version_id = 1", "I5"),
    "sum": ("UPDATE ai_repricings SET adjusted_nano = 1", "I5"),
    "calls": ("UPDATE ai_repricings SET calls_adjusted = 7", "I5"),
    "kept": ("UPDATE ai_repricings SET restated = FALSE", "I3"),
    "charge": ("UPDATE ai_usage_costs SET charge_set_id = NULL WHERE adjusts IS NOT NULL", "I3"),
    "cost": ("UPDATE ai_usage_costs SET cost_nano = 1 WHERE adjusts IS NOT NULL", "I5"),
    "rollup": ("UPDATE ai_cost_analytics SET adjusted_nano = 1", "rollups"),
    "drift": ("UPDATE ai_usage_costs SET drift_nano = 5", "I5"),
    "figure": ("UPDATE ai_usage_costs SET provider_cost_nano = 5 WHERE adjusts IS NULL", "I5"),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_adjustment_is_found(shop, targets, name):
    await shop.sell(targets["old"], [replace(USED, provider_cost_nano=9)])
    await shop.reprice(targets["new"], restate=True)
    assert await verify(shop.engine) == []
    statement, invariant = DAMAGES[name]
    async with shop.engine.begin() as connection:
        await connection.execute(text(statement))
    assert invariant in {finding.invariant for finding in await verify(shop.engine)}
