"""A ledger with a catalog, and the sums that must always agree."""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Connection, func, select, update

from db.catalog import sync_config
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.journal_records import Amounts, Hold, Settle, Window
from db.ledger import Ledger
from db.ledger_types import Batch, Drained, LeaseRequest, PriceDescription
from db.models import (
    ApiKey,
    Budget,
    ChargeSetWindow,
    CostAnalytics,
    Epoch,
    JournalOffset,
    Lease,
    Organization,
    Team,
    UsageCost,
)
from db.models import Window as WindowRow
from db.transactions import Transactions, open_transactions
from tests.factories import NOW_MS, a_hold, a_settle

LIMIT = 1_000
BUDGETS = {"usd": ("total", LIMIT), "tokens": ("day", 10**6), "requests": ("day", 100)}
PRICE = PriceDescription("table", "0" * 64, "test", "2026-01-01", [], {"input_cost": "1"})


def describe(version: str, model: str) -> PriceDescription | None:
    return None if version == "forgotten" else PRICE


class Bank:
    """`usd`, `tokens`, `requests`: a window of a budget in that unit, all on one team."""

    def __init__(self, transactions: Transactions, host_id: str = "host") -> None:
        self.transactions = transactions
        self.dead: list[tuple[Hold, str]] = []
        self.ledger = Ledger(
            transactions,
            host_id=host_id,
            describe_price=describe,
            dead_letter=lambda hold, _settle, reason: self.dead.append((hold, reason)),
            now_ms=lambda: NOW_MS,
        )
        self.key_id = self.organization_id = self.team_id = 0
        self.usd: Window = (0, 0)
        self.tokens: Window = (0, 0)
        self.requests: Window = (0, 0)

    @classmethod
    async def open(cls, url: str, wrap: Callable[[Transactions], Transactions] | None = None):
        transactions = open_transactions(url)
        bank = cls(wrap(transactions) if wrap else transactions)
        await transactions.run(bank._declare)
        return bank

    def _declare(self, connection: Connection) -> None:
        budgets = tuple(
            DeclaredBudget("team/acme/search", unit, limit, period)
            for unit, (period, limit) in BUDGETS.items()
        )
        key = DeclaredKey("prod", "ab" * 32, "acme", "search")
        sync_config(
            connection, Declared(("acme",), (("acme", "search"),), keys=(key,), budgets=budgets), 1
        )
        self.key_id = connection.execute(select(ApiKey.id)).scalar_one()
        self.organization_id = connection.execute(select(Organization.id)).scalar_one()
        self.team_id = connection.execute(select(Team.id)).scalar_one()
        for id_, unit in connection.execute(select(Budget.id, Budget.unit)):
            setattr(self, unit, (id_, 0))

    # --- records

    def hold(self, amounts: Amounts | None = None, **fields: Any) -> Hold:
        who = {
            "key_id": self.key_id,
            "organization_id": self.organization_id,
            "team_id": self.team_id,
            "ceiling_nano": amounts[0][1] if amounts else 0,
        }
        return a_hold(amounts=amounts or [], **(who | fields))

    def call(self, amount: int, cost: int, **fields: Any) -> tuple[Hold, Settle]:
        """A call that held `amount` of the budget in USD and cost `cost`."""
        hold = self.hold([(self.usd, amount)], **fields)
        return hold, a_settle(hold, cost)

    # --- statements

    async def lease(self, epoch_id: int, delta: int, expected: int = 0, **more: Any) -> Any:
        request = LeaseRequest(self.usd, delta, expected, **more)
        (outcome,) = await self.ledger.lease(epoch_id, [request])
        return outcome

    async def drain(self, journal_id: bytes, epoch_id: int, start: int, end: int, **fields: Any):
        values: dict[str, Any] = {"settled": []} | fields
        batch = Batch(journal_id, epoch_id, (0, start), (0, end), **values)
        (drained,) = await self.ledger.drain([batch])
        assert isinstance(drained, Drained)
        return drained

    async def set_limit(self, limit: int) -> None:
        statement = update(Budget).where(Budget.id == self.usd[0]).values(limit_value=limit)
        await self.transactions.run(lambda c: c.execute(statement))

    # --- what it holds

    async def read(self, query: Any) -> list[Any]:
        return await self.transactions.run(lambda c: list(c.execute(query)))

    async def window(self, window: Window | None = None) -> tuple[int, int]:
        """(committed, overage)."""
        budget_id, starts_at = window or self.usd
        rows = await self.read(
            select(WindowRow.committed, WindowRow.overage).where(
                WindowRow.budget_id == budget_id, WindowRow.starts_at == starts_at
            )
        )
        return tuple(rows[0]) if rows else (0, 0)

    async def leases(self, window: Window | None = None) -> dict[int, tuple[int, int]]:
        """Epoch -> (granted, spent)."""
        budget_id, starts_at = window or self.usd
        rows = await self.read(
            select(Lease.epoch_id, Lease.granted, Lease.spent)
            .join(WindowRow, WindowRow.id == Lease.window_id)
            .where(WindowRow.budget_id == budget_id, WindowRow.starts_at == starts_at)
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    async def rows(self) -> dict[bytes, Any]:
        table = UsageCost.__table__
        return {row.call_id: row for row in await self.read(select(table))}

    async def offset(self, journal_id: bytes) -> Any:
        (row,) = await self.read(
            select(JournalOffset.__table__).where(JournalOffset.journal_id == journal_id)
        )
        return row

    async def epoch_state(self, epoch_id: int) -> str:
        ((state,),) = await self.read(select(Epoch.state).where(Epoch.id == epoch_id))
        return str(state)

    async def check(self) -> None:
        """I2 and I3 in every window, and the rollups."""
        await self.transactions.run(check_sums)

    async def close(self) -> None:
        await self.ledger.close()


CHARGED = {
    "usd": UsageCost.cost_nano,
    "tokens": UsageCost.charged_tokens,
    "requests": UsageCost.charged_requests,
}


def check_sums(connection: Connection) -> None:
    query = select(WindowRow.__table__, Budget.unit).join(Budget, Budget.id == WindowRow.budget_id)
    for window in connection.execute(query).all():
        granted, spent = connection.execute(
            select(
                func.coalesce(func.sum(Lease.granted), 0), func.coalesce(func.sum(Lease.spent), 0)
            ).where(Lease.window_id == window.id)
        ).one()
        charged = connection.execute(
            select(func.coalesce(func.sum(CHARGED[window.unit]), 0))
            .select_from(UsageCost)
            .join(ChargeSetWindow, ChargeSetWindow.charge_set_id == UsageCost.charge_set_id)
            .where(ChargeSetWindow.window_id == window.id)
        ).scalar_one()
        assert window.committed == granted, f"I3: window {window.id}"
        assert spent == charged, f"I3: window {window.id}"
    for summed, rolled in (
        (func.sum(UsageCost.cost_nano), func.sum(CostAnalytics.cost_nano)),
        (func.sum(UsageCost.input_tokens), func.sum(CostAnalytics.input_tokens)),
        (func.count().filter(UsageCost.adjusts.is_(None)), func.sum(CostAnalytics.calls)),
    ):
        of_rows = connection.execute(select(summed).select_from(UsageCost)).scalar_one() or 0
        assert of_rows == (connection.execute(select(rolled)).scalar_one() or 0)


Fixture = Callable[[], Awaitable[Bank]]
