"""Customers of two workers, through control: made, pushed, remembered, swept."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from db.raises import Span, add_raise
from proxy.config import Budget
from proxy.config import Customers as CustomersConfig
from proxy.control import customers as customers_module
from proxy.control.customers import ASKED_MAX, IDLE_MS, Customers
from proxy.control.leases import Leases
from proxy.wire import Meet, Met
from tests.proxy.control.test_control import CLOCK, Host, a_config, until
from tests.proxy.control.workers import FakeWorker


def each(limit_usd: str = "1", **fields: Any) -> Budget:
    values = {"period": "total", "limit_usd": limit_usd, "each": "customer"}
    return Budget("team/acme/search", **(values | fields))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    await host.start(a_config(tmp_path, budgets=[each()]))
    yield host
    assert host.control is not None
    await host.control.stop()


def template_of(worker: FakeWorker) -> int:
    (template,) = (b.id for b in worker.snapshots[-1].budgets if b.each)
    return template


async def reload(host: Host, worker: FakeWorker, *budgets: Budget) -> None:
    control = host.control
    assert control is not None
    await control.reload(a_config(Path(host.config.journal.dir).parent, budgets=list(budgets)))
    assert control.snapshot is not None
    revision = control.snapshot.revision
    await until(lambda: worker.snapshots[-1].revision >= revision)


async def ask(worker: FakeWorker, customer: str, number: int = 1) -> Met:
    before = len(worker.messages)

    def answers() -> list[Met]:
        return [m for m in worker.messages[before:] if isinstance(m, Met) and m.ask_id == number]

    worker.channel.send(Meet(number, customer, (template_of(worker),)))
    await until(answers)
    return answers()[0]


async def test_a_customers_money_is_leased_like_any_other(host: Host) -> None:
    worker = await host.worker()
    (made,) = (await ask(worker, "c-1")).budgets
    worker.want([((made.id, 0), 10**9)])
    await until(lambda: worker.free((made.id, 0)) == 10**9)
    other = await host.worker()
    assert (await ask(other, "c-1")).budgets == (made,)
    assert (await ask(other, "c-2", 2)).budgets[0].id != made.id


async def test_snapshots_have_the_customers_that_were_asked_for_last(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customers_module, "CUSTOMERS_MAX", 2)
    worker = await host.worker()
    for number, customer in enumerate(("c-1", "c-2", "c-1", "c-3")):
        await ask(worker, customer, number)
    await reload(host, worker, each("0.5"))
    found = {b.customer: b.limit for b in worker.snapshots[-1].budgets if b.template}
    assert found == {"c-1": 5 * 10**8, "c-3": 5 * 10**8}
    await reload(host, worker)
    assert worker.snapshots[-1].budgets == ()


async def test_a_raise_of_one_customer_reaches_the_workers(host: Host) -> None:
    worker, control = await host.worker(), host.control
    assert control is not None
    assert control.parts is not None
    (made,) = (await ask(worker, "c-1")).budgets
    (other,) = (await ask(worker, "c-2", 2)).budgets
    span = Span(0, 2**60, 3 * 10**9)

    def work(connection: Connection) -> None:
        add_raise(connection, made.id, span, made_by="ann", reason="", now_ms=1)

    await control.parts.transactions.run(work)
    await until(lambda: {made.id: 4 * 10**9, other.id: 10**9}.items() <= limits(worker).items())
    worker.want([((made.id, 0), 4 * 10**9)])
    await until(lambda: worker.free((made.id, 0)) == 4 * 10**9)


def limits(worker: FakeWorker) -> dict[int, int]:
    return {budget.id: budget.limit for budget in worker.snapshots[-1].budgets}


async def test_beyond_the_cap_and_in_an_outage_there_is_an_answer(
    host: Host,
) -> None:
    worker, control = await host.worker(), host.control
    assert control is not None
    assert control.parts is not None
    await reload(host, worker, each(customers=CustomersConfig(tracked_max=1)))
    assert (await ask(worker, "c-1")).budgets
    answer = await ask(worker, "c-2", 2)
    assert (answer.budgets, answer.beyond) == ((), (template_of(worker),))
    control.parts.leases.set_outage(True)
    assert (await ask(worker, "c-1", 3)).outage


async def test_customers_of_long_ago_make_room(host: Host) -> None:
    worker, control = await host.worker(), host.control
    assert control is not None
    assert control.parts is not None
    await reload(host, worker, each(period="month"))
    await ask(worker, "c-1")
    revision = worker.snapshots[-1].revision
    await control.parts.customers.housekeeping(CLOCK.now_ms())
    later = CLOCK.now_ms() + IDLE_MS + 1_000
    await control.parts.customers.housekeeping(later)
    await until(lambda: worker.snapshots[-1].revision > revision)
    assert [b.customer for b in worker.snapshots[-1].budgets] == [""]


class _Away:
    async def run(self, work: object) -> None:
        raise ConnectionError("away")


async def test_questions_are_bounded_and_an_outage_answers_them_all() -> None:
    leases: Any = Leases.__new__(Leases)
    leases.outage = False
    told: list[Met] = []
    customers = Customers(_Away(), leases, lambda: 0)  # type: ignore[arg-type]
    for number in range(ASKED_MAX + 1):
        customers.on_ask(told.append, Meet(number, "c-1", (1,)))
    assert told == [Met(ASKED_MAX, outage=True)]
    with pytest.raises(ConnectionError):
        await customers.step()
    assert len(told) == 1
    customers.fail()
    assert len(told) == ASKED_MAX + 1
    assert all(met.outage for met in told)
