"""Trial budgets: told of the first call each window that they would have refused."""

from types import SimpleNamespace

from sqlalchemy import update

from db.models import Window
from proxy.control.alerts.trials import KIND, sparing
from tests.proxy.control.alerts.books import (
    DAY_S,
    NOW_MS,
    TODAY,
    USD,
    a_budget,
    declare,
    spend,
    told,
)


def spare(connection, budget_id, calls, starts_at=TODAY):
    found = update(Window).where(Window.budget_id == budget_id, Window.starts_at == starts_at)
    connection.execute(found.values(spared=calls))


async def test_the_first_one_in_each_window_is_told(write, alerting, control):
    budget_id = await write(declare, a_budget(enforce=False, alert_at=[]))
    await write(spend, budget_id, 20 * USD)
    await alerting.look()
    assert await write(told) == []
    for calls in (1, 5):
        await write(spare, budget_id, calls)
        await alerting.look()
    (found,) = await write(told)
    assert (found.kind, found.severity, found.scope) == (KIND, "warning", "team/acme/search")
    assert found.summary == (
        "trial budget of team/acme/search per day: were it enforced, it would have refused a call "
        "by now; 20.00 USD of 20.00 USD are spent"
    )
    assert found.facts["would_refuse"] == 1
    control.later(DAY_S)
    await write(spend, budget_id, USD, TODAY + DAY_S)
    await write(spare, budget_id, 2, TODAY + DAY_S)
    await alerting.look()
    assert [each.facts["would_refuse"] for each in await write(told, KIND)] == [1, 2]


async def test_what_is_counted_after_a_windows_end_is_told_for_a_while(write, ask):
    budget_id = await write(declare, a_budget(enforce=False))
    await write(spend, budget_id, USD, TODAY - DAY_S)
    await write(spare, budget_id, 1, TODAY - DAY_S)
    midnight_ms = TODAY * 1000
    assert len(await ask(sparing, midnight_ms + 60_000)) == 1
    assert await ask(sparing, midnight_ms + 16 * 60_000) == []


async def test_a_budget_in_force_now_tells_nothing(write, ask):
    budget_id = await write(declare, a_budget())
    await write(spend, budget_id, USD)
    await write(spare, budget_id, 3)
    assert await ask(sparing, NOW_MS) == []


async def test_nobody_looks_where_no_budget_is_on_trial(write, alerting, control):
    budget_id = await write(declare, a_budget(enforce=False))
    await write(spend, budget_id, USD)
    await write(spare, budget_id, 3)
    control.snapshot = SimpleNamespace(budgets=[SimpleNamespace(enforce=True, each="")])
    await alerting.look()
    assert await write(told, KIND) == []
    control.snapshot.budgets.append(SimpleNamespace(enforce=False, each=""))
    await alerting.look()
    assert len(await write(told, KIND)) == 1
