"""Budgets of end customers on control's side: made when a worker asks, and remembered, so that
snapshots and leases have those that this host's workers know."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from db.catalog import bump_revision
from db.customers import Met as Found
from db.customers import forget_customers, meet
from db.transactions import Transactions
from proxy.control.leases import Leases
from proxy.control.snapshots import Catalog, load_catalog
from proxy.scopes import CUSTOMERS_MAX
from proxy.wire import BudgetEntry, Meet, Met

ASKED_MAX = 10_000
TURN_MAX = 200  # questions that are answered in one turn
IDLE_MS = 90 * 24 * 3_600_000  # customers without a call for so long are not tracked any more
SWEPT_MAX = 1_000  # at once

Send = Callable[[Met], None]


@dataclass(slots=True)
class _Asked:
    send: Send
    question: Meet


class Customers:
    def __init__(self, transactions: Transactions, leases: Leases, now_ms: Callable[[], int]):
        self._transactions = transactions
        self._leases = leases
        self._now_ms = now_ms
        self._asked: list[_Asked] = []
        self._known: OrderedDict[int, None] = OrderedDict()  # ids, the one asked for last is last

    def on_ask(self, send: Send, question: Meet) -> None:
        if self._leases.outage or len(self._asked) >= ASKED_MAX:
            send(Met(question.ask_id, outage=True))
        else:
            self._asked.append(_Asked(send, question))

    def fail(self) -> None:
        """The ledger is out of reach: nobody has to wait for it."""
        asked, self._asked = self._asked, []
        for each in asked:
            each.send(Met(each.question.ask_id, outage=True))

    async def step(self) -> None:
        """Answer. Raises what the database raises; then it is tried again."""
        while self._asked:
            asked = self._asked[:TURN_MAX]
            questions = [each.question for each in asked]
            wanted = {(t, question.customer) for question in questions for t in question.templates}
            work = partial(meet, asked=sorted(wanted), now_ms=self._now_ms())
            found = await self._transactions.run(work)
            del self._asked[: len(asked)]
            for each in asked:
                self._answer(each, found)

    def _answer(self, asked: _Asked, found: Found) -> None:
        customer, templates = asked.question.customer, asked.question.templates
        rows = [found.budgets.get((template, customer)) for template in templates]
        entries = tuple(BudgetEntry(*row) for row in rows if row is not None)
        for entry in entries:
            self._known[entry.id] = None
            self._known.move_to_end(entry.id)
        self._leases.limits.update({entry.id: entry.limit for entry in entries})
        beyond = tuple(t for t in templates if (t, customer) in found.beyond)
        asked.send(Met(asked.question.ask_id, entries, beyond))

    # --- what is remembered

    def load_catalog(self, connection: Connection) -> Catalog:
        """With the budgets of the customers that were asked for last."""
        while len(self._known) > CUSTOMERS_MAX:
            self._known.popitem(last=False)
        return load_catalog(connection, list(self._known))

    async def housekeeping(self, now_ms: int) -> None:
        """Room is made for new customers where others have not called for long."""

        def work(connection: Connection) -> None:
            before_s = (now_ms - IDLE_MS) // 1000
            if forget_customers(connection, before_s, now_ms, SWEPT_MAX):
                bump_revision(connection)

        await self._transactions.run(work)
