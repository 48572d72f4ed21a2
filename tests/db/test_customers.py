"""Budgets of customers: made once, following their template, as many as it may track."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from db import catalog, customers
from db.catalog_budget_edits import budget_state, change_budget, create_budget, delete_budget
from db.catalog_budgets import identity_of
from db.catalog_types import Declared, DeclaredBudget
from db.customers import (
    count_customers,
    forget_customers,
    id_of,
    identity_of_customer,
    load_customers,
    meet,
    remake,
)
from db.errors import NotKnown
from db.journal_records import SHARED
from db.models import Budget, Epoch, Window
from db.raises import Span, add_raise, count_raised_customers
from db.report_customers import customers_above, customers_spared
from tests.factories import NOW_MS, a_lease, stored

NOW_S = NOW_MS // 1000
DAY_S = 86_400
EACH = {"each": "customer", "customers_max": 2, "beyond": "refuse", "clamp": False}
TEMPLATE = DeclaredBudget("team/acme/search", "usd", 5_000, "month", options=EACH)
PLAIN = DeclaredBudget("team/acme/search", "usd", 9_000, "month")


def declared(*budgets):
    return Declared(("acme",), (("acme", "search"),), budgets=budgets)


@pytest.fixture
async def connection(engine):
    async with engine.begin() as connection:
        yield connection


@pytest.fixture
def call(connection):
    async def call(function, *arguments, **options):
        return await connection.run_sync(lambda sync: function(sync, *arguments, **options))

    return call


@pytest.fixture
def sync(call):
    async def sync(*budgets):
        await call(catalog.sync_config, declared(*budgets), NOW_MS)
        return {row.each: row.id for row in await call(catalog.load_budgets)}

    return sync


async def of(call, template_id, *customers):
    met = await call(meet, [(template_id, customer) for customer in customers], NOW_MS)
    return {customer: met.budgets.get((template_id, customer)) for customer in customers}


async def test_a_customer_gets_a_budget_like_the_template_once(sync, call):
    template_id = (await sync(PLAIN, TEMPLATE))["customer"]
    made = (await of(call, template_id, "c-1"))["c-1"]
    again = (await of(call, template_id, "c-1", "c-2"))["c-1"]
    assert made == again
    assert (made.scope, made.template, made.customer) == (
        "customer/team/acme/search/c-1", template_id, "c-1",
    )  # fmt: skip
    assert (made.limit, made.unit, made.period, made.clamp) == (5_000, "usd", "month", False)
    assert (made.each, made.customers_max, made.beyond) == ("", 0, "")
    assert await call(count_customers) == {template_id: 2}
    assert await call(load_customers, [made.id, template_id, 999]) == [made]


async def test_templates_stand_beside_plain_budgets_and_customers_among_neither(sync, call):
    ids = await sync(PLAIN, TEMPLATE)
    await of(call, ids["customer"], "c-1")
    assert [row.id for row in await call(catalog.load_budgets)] == sorted(ids.values())


async def test_no_more_are_tracked_than_the_template_says(sync, call):
    template_id = (await sync(TEMPLATE))["customer"]
    met = await call(meet, [(template_id, name) for name in ("c", "a", "b")], NOW_MS)
    assert {name for _, name in met.budgets} == {"a", "b"}
    assert met.beyond == {(template_id, "c")}


async def test_those_beyond_may_share_a_budget(sync, call):
    shared = {**EACH, "beyond": "share"}
    template_id = (await sync(DeclaredBudget("team/acme/search", "usd", 5, "day", options=shared)))[
        "customer"
    ]
    found = await of(call, template_id, "a", "b", "c", "d")
    assert found["c"] == found["d"]
    assert found["c"].customer == SHARED
    assert len({budget.id for budget in found.values()}) == 3
    assert await call(count_customers) == {template_id: 2}  # which is not one of them
    assert (await of(call, template_id, "c"))["c"] == found["c"]


async def test_a_template_that_is_gone_has_no_customers(sync, call):
    template_id = (await sync(TEMPLATE))["customer"]
    await sync(PLAIN)
    met = await call(meet, [(template_id, "c-1"), (999, "c-1")], NOW_MS)
    assert (met.budgets, met.beyond) == ({}, set())


async def test_customers_live_and_die_with_their_template_and_keep_what_was_spent(sync, call):
    template_id = (await sync(TEMPLATE))["customer"]
    made = (await of(call, template_id, "c-1"))["c-1"]
    await sync(TEMPLATE)
    assert await call(load_customers, [made.id]) == [made]
    await sync()
    assert await call(load_customers, [made.id]) == []
    await sync(TEMPLATE)
    assert await call(load_customers, [made.id]) == []  # until the customer comes again
    assert (await of(call, template_id, "c-1"))["c-1"] == made


async def test_a_changed_template_changes_its_customers(sync, call, connection):
    template_id = (await sync(TEMPLATE))["customer"]
    made = (await of(call, template_id, "c-1"))["c-1"]
    await call(stored, Window, budget_id=made.id, starts_at=0, committed=4_000)
    await sync(
        DeclaredBudget("team/acme/search", "usd", 3_000, "month", options={**EACH, "clamp": True})
    )
    (changed,) = await call(load_customers, [made.id])
    assert (changed.limit, changed.clamp, changed.each) == (3_000, True, "")
    row = (await connection.execute(select(Window.lowered_from))).scalar_one()
    assert row == 4_000


async def test_templates_by_command(call):
    await call(catalog.sync_config, declared(), NOW_MS)
    template_id = await call(create_budget, TEMPLATE, NOW_MS)
    made = (await of(call, template_id, "c-1"))["c-1"]
    await call(change_budget, template_id, limit=7, options={"enforce": False})
    (changed,) = await call(load_customers, [made.id])
    assert (changed.limit, changed.enforce) == (7, False)
    assert await call(budget_state, made.id) is None
    with pytest.raises(NotKnown):
        await call(change_budget, made.id, limit=1, options={})
    await call(delete_budget, template_id, NOW_MS)
    assert await call(load_customers, [made.id]) == []


async def test_idle_customers_make_room_and_come_back_with_their_budget(sync, call, connection):
    template_id = (await sync(TEMPLATE))["customer"]
    found = await of(call, template_id, "a", "b")
    month_s, old_s = 32 * DAY_S, NOW_S - 90 * DAY_S
    await connection.execute(update(Budget).values(created_at_ms=old_s * 1000 - 1))
    await call(stored, Window, budget_id=found["a"].id, starts_at=old_s - month_s + 1)
    await call(stored, Window, budget_id=found["b"].id, starts_at=old_s - month_s)
    assert await call(forget_customers, old_s, NOW_MS, 10) == 1
    assert await call(count_customers) == {template_id: 1}
    assert await call(load_customers, [found["b"].id]) == []
    assert (await of(call, template_id, "c"))["c"] is not None
    met = await call(meet, [(template_id, "b")], NOW_MS)
    assert met.beyond == {(template_id, "b")}


async def test_customers_for_ever_are_kept(sync, call, connection):
    total = DeclaredBudget("team/acme/search", "usd", 5, "total", options=EACH)
    template_id = (await sync(total))["customer"]
    await of(call, template_id, "a")
    await connection.execute(update(Budget).values(created_at_ms=0))
    assert await call(forget_customers, NOW_S, NOW_MS, 10) == 0


async def test_ids_are_the_same_in_every_database_and_one_that_is_taken_is_left(
    sync, call, monkeypatch
):
    template_id = (await sync(TEMPLATE))["customer"]
    identity = identity_of_customer(identity_of(TEMPLATE), "a")
    assert (await of(call, template_id, "a"))["a"].id == id_of(identity)
    assert -(2**53) < id_of(identity) < 0
    monkeypatch.setattr(customers, "id_of", lambda _: id_of(identity))
    assert (await of(call, template_id, "b"))["b"].id == id_of(identity) - 1


@pytest.mark.parametrize("lives", [True, False])
async def test_what_a_restored_database_lacks_is_made_again(sync, call, lives):
    template_id = (await sync(TEMPLATE))["customer"]
    if not lives:
        await sync()
    missing = {id_of(identity_of_customer(identity_of(TEMPLATE), name)) for name in ("a", SHARED)}
    assert not await call(remake, {template_id, 5}, "a", NOW_MS)
    assert not await call(remake, {template_id, min(missing) - 1}, "a", NOW_MS)
    assert await call(remake, missing, "a", NOW_MS)
    found = await call(load_customers, sorted(missing))
    assert {budget.id for budget in found} == (missing if lives else set())


async def test_hosts_that_meet_customers_at_once_make_each_once_and_not_too_many(engine):
    async with engine.begin() as connection:
        await connection.run_sync(catalog.sync_config, declared(TEMPLATE), NOW_MS)
        (template,) = await connection.run_sync(catalog.load_budgets)

    async def host(*customers):
        asked = [(template.id, customer) for customer in customers]
        async with engine.begin() as connection:
            return await connection.run_sync(meet, asked, NOW_MS)

    met = await asyncio.gather(*(host("a", f"own-{n}") for n in range(4)), host("a"), host("a"))
    assert len({each.budgets[template.id, "a"].id for each in met}) == 1
    async with engine.begin() as connection:
        assert await connection.run_sync(count_customers) == {template.id: 2}


async def test_who_is_above_and_what_trials_would_have_refused(sync, call, connection):
    template_id = (await sync(replace(TEMPLATE, options=EACH | {"customers_max": 9})))["customer"]
    (template,) = [row for row in await call(catalog.load_budgets) if row.id == template_id]
    made = await of(call, template_id, *(f"c-{number}" for number in range(4)))
    await call(spend, {row.id: 10 * number for number, row in enumerate(made.values())}, NOW_S)
    await call(spend, {made["c-1"].id: 99}, NOW_S - DAY_S)
    span = Span(0, 2**60, 7)
    for _ in range(2):
        await call(add_raise, made["c-3"].id, span, made_by="", reason="", now_ms=NOW_MS)
    found = await customers_above(connection, template, NOW_S, 10, 2)
    assert [(each.budget.customer, each.spent, each.limit) for each in found] == [
        ("c-3", 30, 5_014), ("c-2", 20, 5_000),
    ]  # fmt: skip
    assert await customers_above(connection, template, NOW_S, 31, 2) == []
    assert await call(count_raised_customers, template_id) == 1
    assert await customers_spared(connection, template, NOW_S) == (6, 3)
    assert await customers_spared(connection, template, NOW_S + 1) == (0, 0)


def spend(connection, amounts, starts_at):
    """And as many calls spared as there are tens."""
    epoch_id = stored(
        connection, Epoch, host_id="h", boot_id="b", state="open", opened_at_ms=0, seen_at_ms=0
    )
    for budget_id, amount in amounts.items():
        window = {"budget_id": budget_id, "starts_at": starts_at, "committed": amount}
        window_id = stored(connection, Window, **window, spared=amount // 10)
        a_lease(connection, window_id, epoch_id, amount, amount)
