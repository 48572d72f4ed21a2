"""Raises of limits: what they add at a time, and that money follows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update

from db.catalog import load_budgets
from db.catalog_budgets import set_limit
from db.errors import CatalogError
from db.ledger_types import LeaseRequest
from db.models import Raise
from db.raises import Span, add_raise, extremes, list_raises, read_mark
from db.verify import verify
from tests.db.bank import LIMIT, Bank

FAR_MS = 4_000_000_000_000
NOW_MS = 1_780_000_000_000


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 30), st.integers(-5, 5)).map(
            lambda t: Span(t[0], t[0] + t[1], t[2])
        ),
        max_size=8,
    ),
    st.integers(0, 40),
)
def test_extremes_are_those_of_every_moment(found: list[Span], since: int) -> None:
    sums = [
        sum(span.amount for span in found if span.from_ms <= at < span.until_ms)
        for at in range(since, 70)
    ]
    assert extremes(found, since) == (min(sums), max(sums))


@pytest.fixture
async def bank(url):
    bank = await Bank.open(url)
    yield bank
    await bank.close()


def raised(bank: Bank, span: Span, now_ms: int = NOW_MS):
    def work(connection):
        about = {"made_by": "ann", "reason": "launch", "now_ms": now_ms}
        return add_raise(connection, bank.usd[0], span, **about)

    return bank.transactions.run(work)


async def end_all(bank: Bank) -> None:
    await bank.transactions.run(lambda c: c.execute(update(Raise).values(until_ms=NOW_MS + 9)))


async def leased(bank: Bank, epoch_id: int, delta: int, expected: int):
    request = LeaseRequest(bank.usd, delta, expected, at_least=1)
    (outcome,) = await bank.ledger.lease(epoch_id, [request])
    assert type(outcome.limit) is int, "it goes to workers as it is"
    return outcome.delta, outcome.limit


async def findings(bank: Bank, engine) -> list[str]:
    return [found.invariant for found in await verify(engine) if found.invariant.startswith("I")]


async def test_a_limit_is_higher_while_a_raise_is_in_force(bank, engine):
    epoch_id = await bank.ledger.register_epoch("boot")
    assert await leased(bank, epoch_id, LIMIT, 0) == (LIMIT, LIMIT)
    await raised(bank, Span(NOW_MS, FAR_MS, 500))
    await raised(bank, Span(FAR_MS - 1, FAR_MS, 7_000))  # not yet
    assert await leased(bank, epoch_id, 900, LIMIT) == (500, LIMIT + 500)
    (budget, *_) = await bank.transactions.run(load_budgets)
    assert (budget.limit, budget.raised) == (LIMIT + 500, 500)
    await end_all(bank)
    assert await leased(bank, epoch_id, 1, LIMIT + 500) == (0, LIMIT)
    assert await findings(bank, engine) == []  # what was granted meanwhile stays
    await bank.transactions.run(lambda c: set_limit(c, bank.usd[0], LIMIT - 100))
    assert await findings(bank, engine) == []
    assert await leased(bank, epoch_id, -600, LIMIT + 500) == (-600, LIMIT - 100)
    await bank.transactions.run(lambda c: c.execute(delete(Raise)))
    await bank.transactions.run(lambda c: set_limit(c, bank.usd[0], LIMIT - 200))
    await bank.transactions.run(lambda c: set_limit(c, bank.usd[0], LIMIT))
    assert await findings(bank, engine) == []


async def test_money_beyond_every_raise_is_found(bank, engine):
    epoch_id = await bank.ledger.register_epoch("boot")
    await raised(bank, Span(NOW_MS, FAR_MS, 500))
    assert await leased(bank, epoch_id, LIMIT + 500, 0) == (LIMIT + 500, LIMIT + 500)
    await bank.transactions.run(lambda c: c.execute(update(Raise).values(amount=499)))
    assert await findings(bank, engine) == ["I1a"]


async def test_the_mark_changes_when_raises_begin_and_end(bank):
    marks = [await bank.transactions.run(read_mark)]
    await raised(bank, Span(FAR_MS - 1, FAR_MS, 1))
    assert await bank.transactions.run(read_mark) == marks[0]
    for change in ({"from_ms": NOW_MS}, {"until_ms": NOW_MS + 1}):
        await bank.transactions.run(lambda c, c_=change: c.execute(update(Raise).values(c_)))
        marks.append(await bank.transactions.run(read_mark))
    assert len(set(marks)) == 3


async def test_a_raise_is_taken_back_and_no_more(bank):
    await raised(bank, Span(NOW_MS, FAR_MS, 500))
    with pytest.raises(CatalogError, match="not more than there is"):
        await raised(bank, Span(NOW_MS + 5, FAR_MS, -501), NOW_MS + 5)
    with pytest.raises(CatalogError, match="not more than there is"):
        await raised(bank, Span(NOW_MS + 5, FAR_MS + 1, -500), NOW_MS + 5)
    await raised(bank, Span(NOW_MS + 5, FAR_MS, -500), NOW_MS + 5)
    found = await bank.transactions.run(list_raises)
    assert [(row.amount, row.made_by, row.in_force) for row in found] == [
        (500, "ann", True),
        (-500, "ann", True),
    ]
    await end_all(bank)
    assert await bank.transactions.run(list_raises) == []
    assert len(await bank.transactions.run(lambda c: list_raises(c, ended=True))) == 2


@pytest.mark.parametrize(
    ("span", "match"),
    [
        (Span(NOW_MS, NOW_MS, 1), "ends after"),
        (Span(NOW_MS - 9, NOW_MS - 5, 1), "in the future"),
        (Span(NOW_MS, FAR_MS, 0), "nothing"),
        (Span(NOW_MS, FAR_MS, 2**63 - 1), "counted"),
    ],
)
async def test_a_raise_that_makes_no_sense(bank, span, match):
    with pytest.raises(CatalogError, match=match):
        await raised(bank, span)
