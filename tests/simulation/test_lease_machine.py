"""The ledger's statements against a few lines of arithmetic: the protocol's section 3 in any order.

Everything a control may ask is asked, rightly or wrongly: stale expectations, offsets that have
moved, rows that exist, epochs that are closed.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from db.catalog import set_limit
from db.journal_records import Hold
from db.ledger_types import Batch, Correction, EpochClosed, LeaseRequest
from db.verify_money import check_epochs, check_leases, check_windows
from tests.db.bank import Bank
from tests.factories import a_call_id, a_uuid7
from tests.simulation.database import Server
from tests.simulation.invariants import Near, collect, finish
from tests.simulation.mutations import applied

amounts = st.integers(0, 40)
LIMIT = 100


class InstantTransactions:
    """Runs each transaction at once, on the simulation's database."""

    dialect = "sqlite"

    async def run(self, work: Any) -> Any:
        with Server.shared().engine.begin() as connection:
            return work(connection)

    async def close(self) -> None:
        pass


@dataclass
class Journal:
    id: bytes
    epoch: int
    position: int = 0
    finished: bool = False
    truncated: bool = False
    open_holds: list[Hold] = field(default_factory=list)


@dataclass
class Account:
    granted: int = 0
    spent: int = 0


class LeaseMachine(RuleBasedStateMachine):
    epochs = Bundle("epochs")
    journals = Bundle("journals")

    @initialize()
    def open(self) -> None:
        server = Server.shared()
        server.restore(server.empty)
        self.bank = Bank(InstantTransactions())
        finish(self.bank.transactions.run(self.bank._declare))
        self.ledger = self.bank.ledger
        self.limit = self.cap = LIMIT
        self._set_limit(LIMIT)
        self.leases: dict[int, Account] = {}
        self.closed: set[int] = set()
        self.all_journals: list[Journal] = []
        self.overage = self.raised = 0
        self.rows: dict[bytes, int] = {}  # call -> what it is charged

    def account(self, epoch: int) -> Account:
        return self.leases.setdefault(epoch, Account())

    @property
    def committed(self) -> int:
        return sum(account.granted for account in self.leases.values())

    # --- lives

    @rule(target=epochs)
    def register_epoch(self) -> int:
        return finish(self.ledger.register_epoch("boot"))

    @rule(target=journals, epoch=epochs)
    def register_journal(self, epoch: int) -> Journal:
        journal = Journal(a_call_id(), epoch)
        if epoch in self.closed:
            with pytest.raises(EpochClosed):
                finish(self.ledger.register_journal(journal.id, epoch))
            journal.finished = True
        else:
            finish(self.ledger.register_journal(journal.id, epoch))
            finish(self.ledger.register_journal(journal.id, epoch))  # again is harmless
            self.all_journals.append(journal)
        return journal

    @rule(epoch=epochs, by_operator=st.booleans())
    def close_epoch(self, epoch: int, by_operator: bool) -> None:
        sure = all(j.finished and not j.truncated for j in self.all_journals if j.epoch == epoch)
        expected = epoch not in self.closed and (by_operator or sure)
        statement = self.ledger.release_epoch if by_operator else self.ledger.close_epoch
        assert finish(statement(epoch)) is expected
        if expected:
            self.closed.add(epoch)
            account = self.account(epoch)
            account.granted = account.spent

    # --- money

    @rule(epoch=epochs, delta=st.integers(-60, 60), stale=st.booleans(), part=st.booleans())
    def lease(self, epoch: int, delta: int, stale: bool, part: bool) -> None:
        account = self.account(epoch)
        known = account.granted + (7 if stale else 0)
        request = LeaseRequest(self.bank.usd, delta, known, at_least=1 if part else 0)
        if epoch in self.closed:
            with pytest.raises(EpochClosed):
                finish(self.ledger.lease(epoch, [request]))
            return
        (outcome,) = finish(self.ledger.lease(epoch, [request]))
        room = self.limit - self.committed
        expected = delta
        if stale or (delta < 0 and account.granted + delta < account.spent):
            expected = 0
        elif delta > 0:
            expected = min(delta, room) if part and room > 0 else delta if delta <= room else 0
        account.granted += expected
        assert (outcome.delta, outcome.granted) == (expected, account.granted)
        assert outcome.committed == self.committed
        assert outcome.limit == self.limit

    @rule(
        journal=journals,
        calls=st.lists(st.tuples(amounts, amounts, st.booleans()), max_size=3),
        moved=st.booleans(),
        again=st.booleans(),
        finishes=st.booleans(),
        truncated=st.booleans(),
        lost=st.lists(amounts, max_size=2),
    )
    def drain(
        self,
        journal: Journal,
        calls: list[tuple[int, int, bool]],
        moved: bool,
        again: bool,
        finishes: bool,
        truncated: bool,
        lost: list[int],
    ) -> None:
        ended = []
        for held, charge, backed in calls:
            hold, settle = self.bank.call(held, charge, backed=backed)
            ended.append((hold, settle))
        if again and ended:  # as from a copy of the journal
            ended.append(ended[0])
        holds = [self.bank.hold([(self.bank.usd, held)]) for held in lost] if finishes else []
        start = journal.position + (5 if moved else 0)
        batch = Batch(
            journal.id, journal.epoch, (0, start), (0, start + 10), ended, holds,
            finish=finishes, truncated=truncated,
        )  # fmt: skip
        if journal not in self.all_journals:
            with pytest.raises(EpochClosed):
                finish(self.ledger.drain([batch]))
            return
        (drained,) = finish(self.ledger.drain([batch]))
        if moved or journal.finished:
            assert drained.moved == (0, journal.position)
            return
        assert drained.moved is None
        assert drained.rows == len(calls) + len(holds)
        journal.position = start + 10
        journal.finished, journal.truncated = finishes, journal.truncated or truncated
        for hold, settle in ended[: len(calls)]:
            charge = settle.charges[0][1]
            self._book(hold, journal.epoch, charge, hold.amounts[0][1] if hold.backed else 0)
        for hold in holds:
            self._book(hold, journal.epoch, hold.amounts[0][1], hold.amounts[0][1])

    def _book(self, hold: Hold, epoch: int, charge: int, held: int) -> None:
        """protocol, section 3: one rule for whatever is not backed."""
        account = self.account(epoch)
        account.spent += charge
        unbacked = max(charge - held, account.spent - account.granted, 0)
        account.granted += unbacked
        self.overage += unbacked
        self.rows[hold.call_id] = charge

    @rule(data=st.data(), cost=amounts)
    def adjust(self, data: Any, cost: int) -> None:
        """The true cost of a call becomes known: booked under the epoch of no host."""
        if not self.rows:
            return
        call_id = data.draw(st.sampled_from(sorted(self.rows)))
        correction = Correction(
            call_id=a_uuid7(), adjusts=call_id, at_ms=1, usage={"input_tokens": 1},
            usage_source="reported", price_version="", model="", cost_nano=cost, cost_items=[],
        )  # fmt: skip
        finish(self.ledger.adjust(correction))
        delta = cost - self.rows[call_id]
        self.rows[call_id] = cost
        account = self.account(0)
        account.granted += delta
        account.spent += delta
        self.raised += max(delta, 0)

    @rule(limit=st.integers(0, 150))
    def change_limit(self, limit: int) -> None:
        self.cap = max(limit, min(self.cap, self.committed - self.overage))
        self.limit = limit
        self._set_limit(limit)

    def _set_limit(self, limit: int) -> None:
        budget_id = self.bank.usd[0]
        finish(self.bank.transactions.run(lambda c: set_limit(c, budget_id, limit)))

    # --- what must hold

    @invariant()
    def the_ledger_is_what_arithmetic_says(self) -> None:
        if not hasattr(self, "bank"):
            return
        committed, overage = finish(self.bank.window())
        assert (committed, overage) == (self.committed, self.overage)
        known = {epoch: (a.granted, a.spent) for epoch, a in self.leases.items()}
        stored = finish(self.bank.leases())
        for epoch, figures in known.items():
            assert stored.get(epoch, (0, 0)) == figures
        assert committed - overage - self.raised <= max(self.cap, self.limit)
        finish(self.bank.check())

    def teardown(self) -> None:
        """What `verify` says in the end."""
        with Server.shared().engine.connect() as connection:
            near: Any = Near(connection)
            for check in (check_windows(near), check_leases(near), check_epochs(near)):
                assert not finish(collect(check))


class TestLeaseMachine(LeaseMachine.TestCase):
    settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("name", ["lease_after_close", "overage_unbooked", "blind_offset"])
def test_the_machine_finds_holes_in_the_statements(name: str) -> None:
    profile = settings(
        max_examples=100, stateful_step_count=30, deadline=None, phases=[Phase.generate],
        database=None,
    )  # fmt: skip
    with applied(name), pytest.raises(BaseException) as found:  # noqa: PT011
        run_state_machine_as_test(LeaseMachine, settings=profile)
    assert not isinstance(found.value, KeyboardInterrupt)
