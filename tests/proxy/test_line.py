"""Two workers and a control that follows the protocol, in every order of messages.

What the invariants are is protocol section 1: I1b and I2 after every step, and at the end
everybody is served, all money comes back and a budget can be spent to its last unit.
"""

import asyncio
import os
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from db.journal_records import Hold, Settle
from proxy.holds import HoldResult
from proxy.scopes import Principal
from tests.factories import a_bound, a_budget, a_hold, a_key, a_settle
from tests.proxy.money import FakeControl, ListJournal, ManualClock, a_snapshot, a_worker, hold

CALLER = Principal(a_key(), "", "", 0)
WORKERS = (0, 1)
IDLE_TICKS = 4  # here
EXAMPLES = int(os.environ.get("TOLLKEEPER_EXAMPLES", "40"))
LEARNED = 2  # the soft budget holds this part of a ceiling
MODELS = ("gpt-5", "gpt-4o")  # the second budget is for the first model only
workers = st.sampled_from(WORKERS)


@pytest.fixture(autouse=True)
def soon_idle(monkeypatch):
    monkeypatch.setattr("proxy.slices.IDLE_TICKS", IDLE_TICKS)


class Call:
    def __init__(self, worker: int, ceiling: int, task: "asyncio.Task[HoldResult]") -> None:
        self.worker, self.ceiling, self.task = worker, ceiling, task
        self.settled = False
        self.checked = False

    @property
    def result(self) -> HoldResult | None:
        return self.task.result() if self.task.done() and not self.task.cancelled() else None

    @property
    def in_flight(self) -> bool:
        return self.result is not None and self.result.kind == "held" and not self.settled


class World(RuleBasedStateMachine):
    @initialize(ahead=st.sampled_from([0, 7, 50]), names_oldest=st.booleans())
    def start(self, ahead, names_oldest):
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.budgets = [
            a_budget(limit=100, period="total"),
            a_budget(
                limit=60, period="hour", models=("gpt-5",), scope="organization/acme", learned=True
            ),
        ]
        self.to_worker = {w: deque() for w in WORKERS}
        self.to_control = {w: deque() for w in WORKERS}
        self.journals = {w: ListJournal() for w in WORKERS}
        self.workers = {
            w: a_worker(self.clock, self.to_control[w].append, self.journals[w]) for w in WORKERS
        }
        self.control = FakeControl(
            lambda worker, message: self.to_worker[worker].append(message),
            ahead=ahead,
            names_oldest=names_oldest,
        )
        self.control.workers = list(WORKERS)
        self.calls: list[Call] = []
        self.apply()

    def apply(self):
        for budget in self.budgets:
            self.control.set_limit(budget.id, budget.limit)
        for worker in self.workers.values():
            worker.apply(a_snapshot(*self.budgets))

    def run(self):
        for _ in range(4):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    # --- what happens

    @rule(worker=workers, ceiling=st.integers(0, 60), model=st.sampled_from(MODELS))
    def begin(self, worker, ceiling, model):
        budgets = self.workers[worker]
        attempt = hold(
            budgets,
            a_hold(),
            budgets.for_call(CALLER, "openai", model),
            a_bound(ceiling, learned=(ceiling // LEARNED, 1)),
            self.clock.now,
        )
        self.calls.append(Call(worker, ceiling, self.loop.create_task(attempt)))
        self.run()

    @precondition(lambda self: any(call.in_flight for call in self.calls))
    @rule(data=st.data(), share=st.sampled_from([0, 0.1, 0.5, 1, 1.5]))
    def end(self, data, share):
        call = data.draw(st.sampled_from([c for c in self.calls if c.in_flight]))
        self.settle(call, int(call.ceiling * share))

    def settle(self, call, charge):
        held = call.result.held
        call.settled = True
        record = a_settle(a_hold(held.call_id, held.amounts), charge)
        self.workers[call.worker].settle(held, record)
        self.run()

    @precondition(lambda self: any(not call.task.done() for call in self.calls))
    @rule(data=st.data())
    def hang_up(self, data):
        data.draw(st.sampled_from([c for c in self.calls if not c.task.done()])).task.cancel()
        self.run()

    @rule(worker=workers, most=st.integers(1, 4))
    def deliver_to_worker(self, worker, most):
        queue = self.to_worker[worker]
        while queue and most:
            self.workers[worker].on_slices(queue.popleft())
            self.run()
            most -= 1

    @rule(worker=workers, most=st.integers(1, 4))
    def deliver_to_control(self, worker, most):
        queue = self.to_control[worker]
        while queue and most:
            self.control.receive(worker, queue.popleft())
            most -= 1

    @rule(worker=workers)
    def report(self, worker):
        self.to_control[worker].append(self.workers[worker].status())

    @rule()
    def flush(self):
        self.control.flush(self.journals)

    @rule()
    def return_the_pool(self):
        self.control.give_back()

    @rule(seconds=st.sampled_from([0.1, 1.5, 5]))
    def wait(self, seconds):
        self.clock.advance(seconds)
        self.run()

    @rule()
    def the_next_hour(self):
        self.clock.advance(3600)
        self.run()

    @rule(which=st.sampled_from([0, 1]), by=st.integers(1, 20))
    def lower_a_limit(self, which, by):
        former = self.budgets[which]
        limit = max(0, former.limit - by)
        self.budgets[which] = a_budget(
            id=former.id, limit=limit, period=former.period, models=former.models,
            scope=former.scope, learned=former.learned,
        )  # fmt: skip
        self.apply()
        self.run()

    # --- what must hold

    def billed(self, window):
        """What finished calls cost in a window: in full, and as far as their holds reach."""
        full = backed = 0
        for journal in self.journals.values():
            for record in journal.records:
                if isinstance(record, Settle):
                    amounts = dict(record.held)
                    if window in amounts:
                        charge = dict(record.charges)[window]
                        full, backed = full + charge, backed + min(charge, amounts[window])
        return full, backed

    @invariant()
    def no_more_is_held_than_committed(self):
        for window, row in self.control.windows.items():
            held = sum(
                dict(hold.amounts).get(window, 0)
                for journal in self.journals.values()
                for hold in journal.open_holds.values()
            )
            assert self.billed(window)[1] + held <= row.committed  # I1b
            assert row.committed <= row.capped  # I1a
            assert self.control.pool(window) >= 0

    @invariant()
    def slices_add_up(self):
        for number, worker in self.workers.items():
            holds = self.journals[number].open_holds.values()
            for window, slice_ in worker._slices.items():
                total = slice_.granted - slice_.returned - slice_.used - slice_.held
                assert slice_.free == total
                assert slice_.free >= 0  # I2
                assert slice_.held == sum(dict(h.amounts).get(window, 0) for h in holds)
                assert slice_.queued == sum(slice_.queue.values())
                assert slice_.granted <= self.control.part(number, window).granted
                assert slice_.spent <= self.billed(window)[0]

    @invariant()
    def spent_means_spent(self):
        for call in self.calls:
            result = call.result
            if result is None or call.checked:
                continue
            call.checked = True
            if result.kind == "spent":
                window = next(
                    s.window for s in self.workers[call.worker]._slices.values()
                    if s.window[0] == result.budget.id and s.ends_at == result.resets_at_s
                ) if result.resets_at_s else (result.budget.id, 0)  # fmt: skip
                left = self.control.window(window).limit - self.billed(window)[0]
                soft = LEARNED if result.budget.learned else 1
                assert call.ceiling // soft > left

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        self.settle_down()
        assert all(call.task.done() for call in self.calls)
        assert not self.control.tickets
        self.spend_the_rest()
        self.money_comes_back()
        self.loop.close()

    def settle_down(self):
        """Everybody gets their turn; finished calls make room for those that wait."""
        for _ in range(2000):
            for worker in WORKERS:
                self.deliver_to_control(worker, 10**6)
            for worker in WORKERS:
                self.deliver_to_worker(worker, 10**6)
            for call in self.calls:
                if call.in_flight:
                    self.settle(call, call.ceiling // 2)
            self.no_more_is_held_than_committed()
            self.slices_add_up()
            quiet = not any(self.to_control.values()) and not any(self.to_worker.values())
            if quiet and all(call.task.done() for call in self.calls):
                return
            if quiet:
                self.flush()
                self.clock.advance(0.5)
                self.run()
        raise AssertionError("messages without end")

    def spend_the_rest(self):
        """The last unit can be spent, wherever money lies idle."""
        self.flush()
        self.settle_down()
        budget = self.budgets[0]
        row = self.control.window((budget.id, 0))
        left = row.limit - self.billed((budget.id, 0))[0]
        if left <= 0 or row.committed > row.limit:
            return
        before = len(self.calls)
        self.begin(0, left, "gpt-4o")
        for _ in range(20):
            for worker in WORKERS:
                self.deliver_to_control(worker, 10**6)
                self.deliver_to_worker(worker, 10**6)
        assert self.calls[before].result.kind == "held"
        self.settle(self.calls[before], left)

    def money_comes_back(self):
        for _ in range(2 * IDLE_TICKS + 1):
            for worker in WORKERS:
                self.report(worker)
            self.settle_down()
        for worker in WORKERS:
            for slice_ in self.workers[worker]._slices.values():
                assert (slice_.free, slice_.held) == (0, 0)
        self.return_the_pool()
        for window, row in self.control.windows.items():
            assert row.committed == self.billed(window)[1]


TestEveryOrderOfMessages = World.TestCase
TestEveryOrderOfMessages.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None
)


def test_holds_precede_settlements():
    """The double itself: a journal's open holds are what was not settled."""
    journal, hold = ListJournal(), a_hold()
    journal.append_hold(hold)
    assert list(journal.open_holds.values()) == [hold]
    journal.append_settle(a_settle(hold))
    assert journal.open_holds == {}
    assert [type(record) for record in journal.records] == [Hold, Settle]
