"""Open calls: charged their hold, settled once by what is noted later, in whatever order."""

import asyncio
import itertools

import pytest
from sqlalchemy import func, select

from db.catalog import load_budgets, sync_config
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.journal_records import Note, Opens
from db.ledger import Ledger
from db.ledger_types import Batch, LeaseRequest, PriceDescription
from db.models import CostAdjustment, Lease, ProviderObject, UsageCost, Window
from db.report_later import AboveHold, above_hold
from db.transactions import open_transactions
from db.verify import verify
from pricing.batch import BatchSize, BatchSums, batch_ceiling
from pricing.book import PriceBook
from pricing.usage import RequestSize, Usage
from tests.factories import NOW_MS, a_hold, a_settle, a_table, a_uuid7, an_entry

JOURNAL = b"j" * 16
BATCHED = {
    "input_cost_per_token_batches": "0.0000005",
    "output_cost_per_token_batches": "0.000005",
    "input_cost_per_token_above_20k_tokens": "0.000004",
    "input_cost_per_token_above_20k_tokens_batches": "0.000002",
}
DEAR = BATCHED | {"input_cost_per_token_batches": "0.000005"}
LIMIT = 10**9
DECLARED = Declared(
    teams=(("acme", "search"),),
    keys=(DeclaredKey("prod", "ab" * 32, "acme", "search"),),
    budgets=(
        DeclaredBudget("team/acme/search", "usd", LIMIT, "day"),
        DeclaredBudget("team/acme/search", "tokens", 10**7, "day"),
    ),
)
WINDOWS = [(1, 0), (2, 0)]


@pytest.fixture
def book(tmp_path):
    entries = {("openai", "small"): an_entry(**BATCHED), ("openai", "dear"): an_entry(**DEAR)}
    return PriceBook(a_table(tmp_path / "tables", entries))


@pytest.fixture
async def make_ledger(url, book):
    made, dead = [], []

    def describe(version, key):
        price = book.by_key(key)
        return PriceDescription(
            version, "0" * 64, "test", "2026-01-01", [], dict(price.entry) if price else {}
        )

    def make(host="host", find_book=lambda version: book):
        ledger = Ledger(
            open_transactions(url), host_id=host, describe_price=describe,
            dead_letter=lambda *letter: dead.append(letter), now_ms=lambda: NOW_MS,
            find_book=find_book,
        )  # fmt: skip
        made.append(ledger)
        return ledger

    yield make
    for each in made:
        await each.close()
    assert not dead


class Life:
    def __init__(self, ledger, epoch_id, book):
        self.ledger, self.epoch_id, self.book = ledger, epoch_id, book
        self._ends = itertools.count(1)
        self._start = (0, 0)

    async def drain(self, *settled, **fields):
        end = (0, next(self._ends))
        batch = Batch(JOURNAL, self.epoch_id, self._start, end, list(settled), **fields)
        self._start = end
        (drained,) = await self.ledger.drain([batch])
        return drained

    def open_call(self, object_id="batch_1", models=("small",), kind="batch", requests=2):
        """A batch of that many requests to each model; (hold, settlement)."""
        size = BatchSize()
        for _ in range(requests):
            size.add(RequestSize(1000, output_limit=100))
        parts = [(size, self.book.quote("openai", model)) for model in models]
        bound = batch_ceiling(parts, 4)
        amounts = list(zip(WINDOWS, (bound.nano, bound.tokens), strict=True))
        hold = a_hold(
            a_uuid7(), amounts, key_id=1, organization_id=1, team_id=1, at_ms=NOW_MS,
            model=models[0], price_version=self.book.version, ceiling_nano=bound.nano,
            ceiling_usage=bound.usage.as_dict(), priced_model=f"openai/{models[0]}",
        )  # fmt: skip
        settle = a_settle(
            hold, charges=amounts, usage=bound.usage.as_dict(), usage_source="estimated",
            cost_nano=bound.nano, cost_items=[], model=f"openai/{models[0]}", ending="open",
            opens=Opens(kind, "", object_id, {"input_tokens": 7}),
        )  # fmt: skip
        return hold, settle


@pytest.fixture
async def life(engine, make_ledger, book):
    async with engine.begin() as connection:
        await connection.run_sync(sync_config, DECLARED, NOW_MS)
        budgets = await connection.run_sync(load_budgets)
    assert [(budget.id, 0) for budget in budgets] == WINDOWS
    ledger = make_ledger()
    epoch_id = await ledger.register_epoch("boot")
    await ledger.register_journal(JOURNAL, epoch_id)
    await ledger.lease(
        epoch_id, [LeaseRequest(WINDOWS[0], LIMIT, 0), LeaseRequest(WINDOWS[1], 10**6, 0)]
    )
    return Life(ledger, epoch_id, book)


def note(kind="batch", object_id="batch_1", **fields):
    return Note("openai", "", kind, object_id, NOW_MS, **fields)


def lines(*used):
    """The result of lines: (model, input tokens, output tokens)."""
    sums = BatchSums()
    for model, given, made in used:
        sums.add(model, Usage(given, made))
    groups = [[[model], usage] for model, usage in sums.groups()]
    return {"groups": groups, "source": "reported", "ending": "complete"}


async def costs(engine):
    """(ending, cost) of every row, in order."""
    async with engine.connect() as connection:
        query = select(UsageCost.ending, UsageCost.cost_nano).order_by(UsageCost.call_id)
        return [tuple(row) for row in await connection.execute(query)]


async def spent(engine):
    async with engine.connect() as connection:
        query = select(Window.committed, func.sum(Lease.spent)).join(
            Lease, Lease.window_id == Window.id
        )
        query = query.group_by(Window.id, Window.committed).order_by(Window.id)
        return [tuple(map(int, row)) for row in await connection.execute(query)]


FILE, RESULT = "file_out", lines(("small", 900, 50), ("small", 100, 50))
COST = 1000 * 500 + 100 * 5_000  # at batch prices
NOTES = [note(outputs=[FILE]), note("file", FILE, result=RESULT)]


async def test_an_open_call_is_charged_its_hold(engine, life):
    hold, settle = life.open_call()
    drained = await life.drain((hold, settle))

    assert drained.ready == 0
    assert await life.ledger.settle_open() == ([], [])
    assert await costs(engine) == [("open", hold.ceiling_nano)]
    assert hold.ceiling_nano == 2 * ((1000 + 2048) * 500 + 100 * 5_000)
    assert await verify(engine) == []


@pytest.mark.parametrize("order", [*itertools.permutations(["call", *NOTES])])
async def test_call_mapping_and_result_in_any_order(engine, life, order):
    """They come from the journals of different workers and hosts."""
    call = life.open_call()
    ready = []
    for each in order:
        if each == "call":
            ready.append((await life.drain(call)).ready)
        else:
            ready.append((await life.drain(notes=[each])).ready)
        settled, problems = await life.ledger.settle_open()
        assert (len(settled), problems) == (ready[-1], [])

    assert ready == [0, 0, 1]
    assert await costs(engine) == [
        ("open", call[0].ceiling_nano),
        ("complete", COST - call[0].ceiling_nano),
    ]
    assert (await spent(engine))[0][1] == COST
    assert await verify(engine) == []


async def test_a_result_that_comes_often_settles_once(engine, life, make_ledger):
    call = life.open_call()
    await life.drain(call, notes=[note(result=RESULT)])
    others = [make_ledger(f"host-{number}") for number in range(4)]
    found = await asyncio.gather(*(other.settle_open() for other in (life.ledger, *others)))
    for _ in range(3):
        assert (await life.drain(notes=[*NOTES, note(result=RESULT)])).ready == 0
        found.append(await life.ledger.settle_open())

    settled = [each for some, problems in found for each in some]
    assert [(each.nano, each.change) for each in settled] == [(COST, COST - call[0].ceiling_nano)]
    assert sorted(settled[0].windows) == WINDOWS
    async with engine.connect() as connection:
        count = select(func.count()).select_from(CostAdjustment)
        assert (await connection.execute(count)).scalar_one() == 1
    assert await verify(engine) == []


async def test_two_models_are_itemised(engine, life):
    call = life.open_call(models=("small", "dear"))
    used = lines(("small", 10, 1), ("dear", 10, 1), ("dear", 10, 1))
    await life.drain(call, notes=[note(result=used)])
    ((settled,), _) = await life.ledger.settle_open()

    assert settled.nano == 10 * 500 + 20 * 5_000 + 3 * 5_000
    async with engine.connect() as connection:
        query = select(UsageCost.cost_items, UsageCost.usage).where(UsageCost.adjusts.is_not(None))
        items, usage = (await connection.execute(query)).one()
    assert [(name, count) for name, count, _ in items] == [
        ("input", 10), ("output", 1), ("input@dear", 20), ("output@dear", 2),
    ]  # fmt: skip
    assert [model for model, _ in usage["passes"]] == ["", "dear"]
    assert await verify(engine) == []


async def test_lines_are_billed_at_their_own_context_size(engine, life):
    call = life.open_call(requests=50)
    used = lines(("small", 20_000, 0), ("small", 20_001, 0), ("small", 5, 0), ("small", 19_001, 0))
    await life.drain(call, notes=[note(result=used)])
    ((settled,), _) = await life.ledger.settle_open()

    assert settled.nano == (20_000 + 5 + 19_001) * 500 + 20_001 * 2_000
    assert await verify(engine) == []


async def test_nothing_was_finished(engine, life):
    await life.drain(life.open_call(), notes=[note(result=lines())])
    ((settled,), _) = await life.ledger.settle_open()

    assert settled.nano == 0
    assert (await spent(engine))[0][1] == 0
    assert await verify(engine) == []


TOTAL = lines(("small", 1000, 100)) | {"total": True}


async def test_a_total_settles_where_it_tells_enough(engine, life):
    await life.drain(life.open_call(), notes=[note(result=TOTAL)])
    ((settled,), _) = await life.ledger.settle_open()

    assert settled.nano == COST
    assert await verify(engine) == []


async def test_a_total_waits_for_the_lines_where_sizes_may_differ(engine, life):
    """Requests of this batch may be above the context size from which tokens are dearer."""
    size = BatchSize()
    size.add(RequestSize(25_000, output_limit=100))
    hold, settle = life.open_call()
    bound = size.usage(life.book.quote("openai", "small"), 4)
    hold.ceiling_usage = settle.usage = bound.as_dict()
    nano = bound.input_tokens * 2_000 + 100 * 5_000
    hold.ceiling_nano = settle.cost_nano = nano
    tokens = bound.input_tokens + 100
    settle.held = settle.charges = hold.amounts = list(zip(WINDOWS, (nano, tokens), strict=True))
    await life.drain((hold, settle), notes=[note(result=TOTAL)])

    assert await life.ledger.settle_open() == ([], [])
    assert (await life.drain(notes=[*NOTES])).ready == 1
    ((settled,), _) = await life.ledger.settle_open()
    assert settled.nano == COST
    assert await verify(engine) == []


async def test_estimated_where_no_reply_tells(engine, life):
    cut = {"groups": [[[], {"output_tokens": 3}]], "source": "estimated", "ending": "cut"}
    await life.drain(
        life.open_call("resp_1", kind="response"), notes=[note("response", "resp_1", result=cut)]
    )
    ((settled,), _) = await life.ledger.settle_open()

    assert settled.nano == 7 * 1_000 + 3 * 10_000  # a response is no batch
    assert await verify(engine) == []


async def test_a_table_that_is_not_here_is_told_and_tried_again(engine, life, make_ledger):
    await life.drain(life.open_call(), notes=[note(result=RESULT)])
    without = make_ledger("other", find_book=lambda version: None)
    settled, problems = await without.settle_open()
    assert (settled, len(problems)) == ([], 1)
    assert "is not here" in problems[0]
    assert await without.settle_open() == ([], [])

    await life.ledger.try_again()
    settled, problems = await life.ledger.settle_open()
    assert (len(settled), problems) == (1, [])
    await life.ledger.try_again()
    assert await life.ledger.settle_open() == ([], [])


async def test_files_are_found_by_their_whole_name(life):
    await life.drain(notes=[note("file", "file_1", requests={"parts": []})])

    found = await life.ledger.find_object(("openai", "", "file", "file_1"))
    assert found is not None
    assert found.requests == {"parts": []}
    for identity in (
        ("azure", "", "file", "file_1"),
        ("openai", "ab", "file", "file_1"),
        ("openai", "", "batch", "file_1"),
        ("openai", "", "file", "file_2"),
    ):
        assert await life.ledger.find_object(identity) is None


async def test_what_concerns_no_call_is_forgotten(engine, life):
    await life.drain(life.open_call(), notes=[note(outputs=[FILE]), note("file", "old")])
    assert await life.ledger.forget_objects(NOW_MS) == 0
    assert await life.ledger.forget_objects(NOW_MS + 1) == 2
    async with engine.connect() as connection:
        kept = (await connection.execute(select(ProviderObject.object_id))).scalars().all()
    assert kept == ["batch_1"]


async def test_verify_finds_a_settlement_of_another_call(engine, life, write):
    await life.drain(life.open_call("batch_1"), notes=[note(result=RESULT)])
    await life.drain(life.open_call("batch_2"))
    await life.ledger.settle_open()

    def swap(connection):
        table = ProviderObject.__table__
        rows = connection.execute(select(table.c.call_id).order_by(table.c.id)).scalars().all()
        connection.execute(table.update().values(call_id=None))
        for object_id, call_id in zip(("batch_2", "batch_1"), rows, strict=True):
            connection.execute(
                table.update().where(table.c.object_id == object_id).values(call_id=call_id)
            )

    await write(swap)
    (finding,) = await verify(engine)
    assert "does not correct its call" in finding.message


async def test_a_note_that_is_refused_stops_nothing(engine, life):
    """Here one whose kind no column takes, or whose usage is none."""
    wrong = lines(("small", 1, 1))
    wrong["groups"][0][1]["no_such_field"] = 1
    await life.drain(life.open_call(), notes=[note(result=wrong)])
    settled, problems = await life.ledger.settle_open()
    assert (settled, len(problems)) == ([], 1)
    call = life.open_call("batch_2")
    too_long = Note("openai", "", "k" * 300, "x", 2**80)
    await life.drain(call, notes=[too_long, note(object_id="batch_2", result=RESULT)])
    ((settled,), _) = await life.ledger.settle_open()
    assert settled.nano == COST


async def test_what_was_above_its_hold_is_known_by_model_and_time(engine, life):
    """The ledger's flags do not tell: a correction has none of its call's."""
    much = lines(("small", 10_000, 50_000))
    for number, result in enumerate((RESULT, much, much)):
        name = f"batch_{number}"
        await life.drain(life.open_call(name), notes=[note(object_id=name, result=result)])
    found, _ = await life.ledger.settle_open()
    above = [each.change for each in found if each.change > 0]
    assert len(above) == 2
    async with engine.connect() as connection:
        day = (NOW_MS - 10**9, NOW_MS + 10**9)
        expected = [AboveHold("openai", "small", 2, sum(above))]
        assert await above_hold(connection, *day, 5) == expected
        assert await above_hold(connection, day[0] - 1, day[0], 5) == []
        assert await above_hold(connection, day[1], day[1] + 1, 5) == []
