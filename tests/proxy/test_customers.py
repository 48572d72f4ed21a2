"""Budgets of customers on a worker: asked once, waited for, forgotten, and never left out."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from db.journal_records import SHARED
from proxy import customers
from proxy.customers import check_customer
from proxy.errors import Refusal
from proxy.providers.base import Route
from proxy.scopes import BudgetIndex
from proxy.wire import BudgetEntry, Meet, Met, Settings
from tests.factories import a_bound, a_budget
from tests.proxy.money import a_snapshot
from tests.proxy.test_budgets import Bench
from tests.proxy.test_scopes import made, of

TEMPLATE = a_budget(id=1, each="customer", limit=1000, period="total")


def total(number: int, customer: str, **fields: Any) -> BudgetEntry:
    return made(number, customer, period="total", limit=1000, **fields)


class Desk(Bench):
    """A worker with one template, and the questions that it asks."""

    def __init__(self, *budgets: BudgetEntry, **settings: Any) -> None:
        super().__init__(*(budgets or (TEMPLATE,)), **settings)

    def meet(self, customer: str) -> "asyncio.Task[customers.Unmet]":
        return asyncio.ensure_future(self.worker.meet(of(customer)))

    def asked(self) -> list[Meet]:
        return self.take_sent(Meet)

    def tell(self, question: Meet, *budgets: BudgetEntry, **fields: Any) -> None:
        self.worker.on_met(Met(question.ask_id, budgets, **fields))

    async def learn(self, customer: str, *budgets: BudgetEntry) -> None:
        task = self.meet(customer)
        await self.run()
        self.tell(self.asked()[0], *budgets)
        assert await task == {}


async def test_a_customer_is_asked_for_once_however_many_calls_wait() -> None:
    desk = Desk()
    tasks = [desk.meet("c-1") for _ in range(3)]
    await desk.run()
    tasks[0].cancel()  # its client hung up
    (question,) = desk.asked()
    assert (question.customer, question.templates) == ("c-1", (1,))
    desk.tell(question, total(11, "c-1"))
    assert await asyncio.gather(*tasks[1:]) == [{}, {}]
    assert await desk.meet("c-1") == {}
    assert desk.asked() == []
    assert desk.worker.for_call(of("c-1"), "openai", "gpt-5") == (total(11, "c-1"),)


async def test_callers_without_customer_or_templates_ask_nothing() -> None:
    desk = Desk()
    assert await desk.meet("") == {}
    plain = Desk(a_budget())
    assert await plain.meet("c-1") == {}
    assert desk.asked() == plain.asked() == []


@pytest.mark.parametrize(
    ("answer", "unmet"),
    [({"beyond": (1,)}, "beyond"), ({}, "gone"), ({"outage": True}, "outage")],
)
async def test_who_has_no_budget_is_asked_for_again(answer: dict[str, Any], unmet: str) -> None:
    desk = Desk()
    for _ in range(2):
        task = desk.meet("c-1")
        await desk.run()
        desk.tell(desk.asked()[0], **answer)
        assert await task == {1: unmet}


async def test_control_that_does_not_answer_or_is_gone_is_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(customers, "ANSWER_WAIT_S", 0)
    desk = Desk()
    assert await desk.meet("slow") == {1: "outage"}
    desk.tell(desk.asked()[0], total(11, "slow"))  # late, and of use to the next call
    assert await desk.meet("slow") == {}
    monkeypatch.undo()
    task = desk.meet("c-1")
    await desk.run()
    desk.worker.control_gone()
    assert await task == {1: "outage"}
    assert await desk.meet("c-2") == {1: "outage"}
    desk.tell(Meet(99, "", ()), total(12, "c-2"))  # to a question that nobody asked


async def test_money_of_a_customer_that_is_forgotten_goes_back_and_is_had_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BudgetIndex.__init__, "__defaults__", (1,))
    desk = Desk()
    await desk.learn("c-1", total(11, "c-1"))
    slice_ = desk.worker.look(total(11, "c-1"), desk.clock.now)
    assert slice_ is not None
    desk.grant(100, window=slice_.window)
    await desk.learn("c-2", total(12, "c-2"))
    assert slice_.retired
    (status,) = desk.worker.status().slices
    assert (status.window, status.returned_total) == (slice_.window, 100)
    await desk.learn("c-1", total(11, "c-1"))
    assert desk.worker.look(total(11, "c-1"), desk.clock.now) is slice_
    assert not slice_.retired
    assert slice_.free == 0


async def test_those_that_share_a_budget_do_not_take_it_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BudgetIndex.__init__, "__defaults__", (1,))
    desk, shared = Desk(), total(11, SHARED)
    await desk.learn("c-1", shared)
    await desk.learn("c-2", shared)
    assert desk.worker.for_call(of("c-2"), "openai", "gpt-5") == (shared,)
    slice_ = desk.worker.look(shared, desk.clock.now)
    assert slice_ is not None
    assert not slice_.retired


async def test_a_snapshot_brings_the_customers_that_are_known() -> None:
    desk = Desk()
    await desk.learn("c-1", total(11, "c-1"))
    await desk.learn("c-2", total(12, "c-2"))
    desk.worker.apply(a_snapshot(TEMPLATE, total(12, "c-2", models=("gpt-5",))))
    assert await desk.meet("c-2") == {}
    task = desk.meet("c-1")
    await desk.run()
    assert [question.customer for question in desk.asked()] == ["c-1"]
    task.cancel()


async def test_a_hold_for_a_customer_that_was_just_forgotten_is_an_outage() -> None:
    desk = Desk()
    applicable = (total(11, "c-1"),)
    plan = desk.worker.plan(b"", 1, applicable, a_bound(1), desk.clock.now)
    assert plan is None


# --- whether a call may go on -------------------------------------------------------------------


def a_call(customer: str, *, unmet: dict[int, str] | None = None, **settings: Any) -> Any:
    route = Route("chat.completions", "metered", "chat")
    facts = SimpleNamespace(route=route, model="gpt-5", parts=[])
    arrival = SimpleNamespace(principal=of(customer), provider=SimpleNamespace(name="openai"))
    state = SimpleNamespace(settings=Settings(**settings))
    return SimpleNamespace(arrival=arrival, facts=facts, unmet=unmet or {}, state=state)


REQUIRED = a_budget(id=1, each="customer", customer_required=True, customers_max=7)


@pytest.mark.parametrize(
    ("template", "call", "code"),
    [
        (TEMPLATE, a_call(""), None),
        (TEMPLATE, a_call("known"), None),
        (TEMPLATE, a_call("new", unmet={1: "gone"}), None),
        (TEMPLATE, a_call("new", unmet={1: "beyond"}), "too_many_customers"),
        (TEMPLATE, a_call("new", unmet={1: "outage"}), "ledger_unavailable"),
        (TEMPLATE, a_call("new", unmet={1: "outage"}, on_ledger_outage="allow"), None),
        (TEMPLATE, a_call("forgotten a moment ago"), "ledger_unavailable"),
        (REQUIRED, a_call(""), "customer_required"),
        (REQUIRED, a_call("known"), None),
        (a_budget(id=1, each="customer", models=("o*",)), a_call("new"), None),
        (a_budget(id=1, each="customer", enforce=False), a_call("new"), None),
        (a_budget(id=1, each="customer", enforce=False, customer_required=True), a_call(""), None),
    ],
)
def test_a_call_goes_on_or_is_told_why_not(
    template: BudgetEntry, call: Any, code: str | None
) -> None:
    index = BudgetIndex([template, made(11, "known")])
    if code is None:
        check_customer(call, index)
    else:
        with pytest.raises(Refusal) as caught:
            check_customer(call, index)
        assert caught.value.code == code


def test_every_model_of_a_batch_is_looked_at() -> None:
    call = a_call("new", unmet={1: "beyond"})
    call.facts.parts = [("o3", None)]
    with pytest.raises(Refusal):
        check_customer(call, BudgetIndex([a_budget(id=1, each="customer", models=("o*",))]))
