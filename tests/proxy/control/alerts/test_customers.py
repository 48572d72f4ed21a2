"""Thresholds of customers' budgets: who it is, once each per window, and not without end."""

import pytest

from db.customers import meet
from db.journal_records import SHARED
from db.raises import Span, add_raise
from proxy.control.alerts import customers
from proxy.control.alerts.customers import crossed_by_customers
from proxy.control.alerts.trials import KIND as TRIAL
from proxy.control.alerts.trials import sparing
from tests.proxy.control.alerts.books import (
    DAY_S,
    NOW_MS,
    TODAY,
    USD,
    a_budget,
    declare,
    raise_limit,
    spend,
    told,
)
from tests.proxy.control.alerts.test_trials import spare


def each(**options):
    values = {"each": "customer", "customers_max": 1000, "beyond": "share"} | options
    return a_budget(**values)


@pytest.fixture
def met(write):
    """Ids of the budgets of customers of a template."""

    async def met(template_id, *names):
        wanted = [(template_id, name) for name in names]
        found = await write(lambda connection: meet(connection, wanted, NOW_MS))
        return [found.budgets[each].id for each in wanted]

    return met


async def test_each_customer_is_told_once_per_window(write, alerting, control, met):
    template_id = await write(declare, each())
    first, second, _idle = await met(template_id, "c-1", "c-2", "c-3")
    await write(spend, first, 10 * USD)
    await write(spend, second, 10 * USD - 1)
    for _ in range(2):
        await alerting.look()
        control.later(15)
    await write(spend, second, 17 * USD)
    await alerting.look()
    found = await write(told)
    assert sorted((each.facts["customer"], each.facts["at"]) for each in found) == [
        ("c-1", "50"), ("c-2", "50"), ("c-2", "80"),
    ]  # fmt: skip
    assert found[0].summary == (
        "budget of customer c-1 of team/acme/search per day: 50 % is spent, 10.00 USD of 20.00 USD"
    )
    assert (found[0].scope, found[0].facts["template"]) == (
        "customer/team/acme/search/c-1",
        template_id,
    )
    control.later(DAY_S)
    await write(spend, first, 11 * USD, TODAY + DAY_S)
    await alerting.look()
    assert len(await write(told)) == 4


async def test_of_many_customers_so_many_are_told_and_then_that_there_are_more(
    write, alerting, control, met, monkeypatch
):
    monkeypatch.setattr(customers, "TOLD_MAX", 3)
    template_id = await write(declare, each(alert_at=[50]))
    budgets = await met(template_id, *(f"c-{number}" for number in range(8)))
    for number, budget_id in enumerate(budgets[:4]):
        await write(spend, budget_id, (19 - number) * USD)
    await alerting.look()
    found = await write(told)
    assert sorted(each.facts.get("customer", "") for each in found) == ["", "c-0", "c-1", "c-2"]
    (more,) = [each for each in found if "customer" not in each.facts]
    assert "more than 3 customers have spent 50 % or more" in more.summary
    assert more.scope == "team/acme/search"
    for budget_id in budgets[4:]:
        await write(spend, budget_id, 20 * USD)
    control.later(15)
    await alerting.look()
    assert len(await write(told)) == 4


async def test_one_whose_limit_is_raised_is_told_of_its_own(write, ask, met):
    template_id = await write(declare, each(alert_at=[50]))
    (budget_id,) = await met(template_id, "c-1")
    span = Span(0, 2**60, 20 * USD)
    await write(add_raise, budget_id, span, made_by="ann", reason="", now_ms=NOW_MS)
    await write(spend, budget_id, 20 * USD - 1)
    assert await ask(crossed_by_customers, NOW_MS) == []
    await write(spend, budget_id, 20 * USD)
    (found,) = await ask(crossed_by_customers, NOW_MS)
    assert (found.facts["limit"], found.budget_id) == ("40", budget_id)


async def test_a_template_that_is_raised_tells_again(write, alerting, control, met):
    template_id = await write(declare, each(alert_at=[50]))
    (budget_id,) = await met(template_id, "c-1")
    await write(spend, budget_id, 10 * USD)
    await alerting.look()
    for raised in (template_id, budget_id):
        await write(raise_limit, raised, 40 * USD)
    for spent in (19, 20):
        control.later(15)
        await write(spend, budget_id, spent * USD)
        await alerting.look()
    assert [each.facts["limit"] for each in await write(told)] == ["20", "40"]


async def test_those_who_share_a_budget_are_told_as_such(write, ask, met):
    template_id = await write(declare, each(customers_max=1))
    _, shared = await met(template_id, "c-1", "c-2")
    await write(spend, shared, 10 * USD)
    (found,) = await ask(crossed_by_customers, NOW_MS)
    assert found.summary.startswith("budget of all further customers of team/acme/search per day")
    assert found.facts["customer"] == SHARED


async def test_a_trial_for_each_customer_is_told_once_for_all(write, ask, alerting, met):
    template_id = await write(declare, each(enforce=False, alert_at=[]))
    first, second = await met(template_id, "c-1", "c-2")
    for budget_id in (first, second):
        await write(spend, budget_id, USD)
    assert await ask(sparing, NOW_MS) == []
    await write(spare, first, 3)
    await alerting.look()
    await write(spare, second, 1)
    await alerting.look()
    (found,) = await write(told, TRIAL)
    assert found.summary == (
        "trial budget of each customer of team/acme/search per day: were it enforced, it would "
        "have refused 3 calls of one customer by now"
    )
    assert found.scope == "team/acme/search"
