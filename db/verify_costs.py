"""I5: the cost of every row follows from its usage and the price entry it names."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.models import ModelCost, UsageCost
from db.streaming import stream
from db.verify_types import Finding, call_name
from pricing.calculator import ceiling_cost, cost
from pricing.errors import PricingError
from pricing.money import nano_from_atto, usd_from_nano
from pricing.price import Price
from pricing.usage import Usage

ROWS_PER_PROGRESS = 2_000

COLUMNS = (
    UsageCost.call_id,
    UsageCost.at_ms,
    UsageCost.ending,
    UsageCost.usage,
    UsageCost.price_id,
    UsageCost.cost_nano,
)


class Prices:
    """The price entries rows refer to, compiled when first needed."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._entries: dict[int, tuple[int, str, dict[str, Any]]] = {}
        self._ids: dict[tuple[int, str], int] = {}
        self._compiled: dict[int, Price] = {}
        for id_, version_id, key, entry in rows:
            self._entries[id_] = (version_id, key, entry)
            self._ids[version_id, key] = id_

    def price(self, id_: int) -> Price:
        """Raises PricingError, naming the model."""
        compiled = self._compiled.get(id_)
        if compiled is None:
            _, key, entry = self._entries[id_]
            if not entry:
                raise PricingError(f"{key}: its price entry was not stored")
            provider, _, model = key.partition("/")
            compiled = self._compiled[id_] = Price.compile(provider, model, entry)
        return compiled

    def other(self, id_: int, model: str) -> Price | None:
        """The price of another model in the same price version; None: not stored."""
        version_id, key, _ = self._entries[id_]
        other = self._ids.get((version_id, f"{key.partition('/')[0]}/{model}"))
        return None if other is None else self.price(other)


async def load_prices(connection: AsyncConnection) -> Prices:
    columns = (ModelCost.id, ModelCost.price_version_id, ModelCost.model, ModelCost.entry)
    return Prices(await connection.execute(select(*columns)))


async def check_costs(
    connection: AsyncConnection, progress: Callable[[int], None]
) -> AsyncGenerator[Finding, None]:
    """Each call as it was settled; what corrections made of it is `check_corrections`."""
    prices = await load_prices(connection)
    query = select(*COLUMNS, UsageCost.cost_items).where(UsageCost.adjusts.is_(None))
    done = 0
    async for row in stream(connection, query):
        problem = cost_problem(row, row.at_ms, row.cost_nano, row.cost_items, prices)
        if problem:
            yield Finding("I5", call_name(row.call_id), problem)
        done += 1
        if done % ROWS_PER_PROGRESS == 0:
            progress(done)


async def check_corrections(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """A corrected call costs, all its rows together, what its last correction's usage does."""
    prices = await load_prices(connection)
    call_id = UsageCost.adjusts
    latest_first = UsageCost.call_id.desc()
    corrections = (
        select(
            call_id,
            UsageCost.call_id.label("last"),
            func.sum(UsageCost.cost_nano).over(partition_by=UsageCost.adjusts).label("nano"),
            func.row_number()
            .over(partition_by=UsageCost.adjusts, order_by=latest_first)
            .label("n"),
        )
        .where(UsageCost.adjusts.is_not(None))
        .subquery()
    )
    call = aliased(UsageCost)
    total = (call.cost_nano + corrections.c.nano).label("total_nano")
    query = (
        select(*COLUMNS, call.at_ms.label("called_at_ms"), total, corrections.c.adjusts)
        .join(corrections, corrections.c.last == UsageCost.call_id)
        .join(call, corrections.c.adjusts == call.call_id)
        .where(corrections.c.n == 1)
    )
    async for row in stream(connection, query):
        problem = cost_problem(row, row.called_at_ms, int(row.total_nano), None, prices)
        if problem:
            yield Finding("I5", call_name(row.adjusts), f"corrected: {problem}")


def cost_problem(
    row: Any, at_ms: int, nano: int, items: list[Any] | None, prices: Prices
) -> str | None:
    """What is wrong with a cost of `nano`, given a row's usage and price; None: nothing."""
    if row.usage is None or row.price_id is None:
        lacks = "usage" if row.usage is None else "price"
        return f"costs {usd_from_nano(nano)} USD without {lacks}" if nano else None
    try:
        expected, expected_items = _expected(row, at_ms, items, prices)
    except (PricingError, TypeError) as exc:
        return f"cannot be computed again: {exc}"
    if nano != expected:
        return f"costs {usd_from_nano(nano)} USD, its usage {usd_from_nano(expected)}"
    if items is not None and items != expected_items:
        return f"has items {items}, its usage {expected_items}"
    return None


def _expected(
    row: Any, at_ms: int, items: list[Any] | None, prices: Prices
) -> tuple[int, list[list[Any]] | None]:
    """The cost and items that usage and price give. Raises PricingError, TypeError."""
    usage = Usage.from_dict(row.usage)
    price = prices.price(row.price_id)
    if row.ending == "lost":
        return ceiling_cost(usage, price), items
    unknown = False

    def other(model: str) -> Price | None:
        nonlocal unknown
        found = prices.other(row.price_id, model)
        unknown = unknown or found is None
        return found

    computed = cost(usage, price, other, at_s=at_ms / 1000)
    if unknown and items is not None:
        # A pass at a model no row refers to: its price is nowhere but in the items.
        return nano_from_atto(sum(count * atto for _, count, atto in items)), items
    return computed.nano, [list(item) for item in computed.items]
