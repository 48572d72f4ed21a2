"""I5: the cost of every row follows from its usage and the price entry it names."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.journal_records import CHARGED_AT_HOLD, FLAG_REPORTED_COST
from db.models import ModelCost, UsageCost
from db.streaming import stream
from db.verify_types import Finding, call_name
from pricing.book import split_key
from pricing.calculator import PROVIDER_FIGURE, ceiling_cost, cost
from pricing.errors import PricingError
from pricing.money import ATTO_PER_NANO, nano_from_atto, usd_from_nano
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
    UsageCost.flags,
    UsageCost.hold_nano,
    UsageCost.provider_cost_nano,
    UsageCost.drift_nano,
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
        name, team = split_key(key)
        other = self._ids.get((version_id, f"{name.partition('/')[0]}/{model}{team}"))
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
    latest_first = UsageCost.call_id.desc()
    of_call: dict[str, Any] = {"partition_by": UsageCost.adjusts}
    corrections = (
        select(
            UsageCost.adjusts,
            UsageCost.call_id.label("last"),
            func.sum(UsageCost.cost_nano).over(**of_call).label("nano"),
            func.sum(UsageCost.drift_nano).over(**of_call).label("drift"),
            func.row_number().over(**of_call, order_by=latest_first).label("n"),
        )
        .where(UsageCost.adjusts.is_not(None))
        .subquery()
    )
    call = aliased(UsageCost)
    query = (
        select(
            *COLUMNS,
            UsageCost.cost_items,
            corrections.c.adjusts,
            call.at_ms.label("called_at_ms"),
            call.provider_cost_nano.label("figure"),
            (call.cost_nano + corrections.c.nano).label("total_nano"),
            (call.drift_nano + corrections.c.drift).label("total_drift"),
        )
        .join(corrections, corrections.c.last == UsageCost.call_id)
        .join(call, corrections.c.adjusts == call.call_id)
        .where(corrections.c.n == 1)
    )
    async for row in stream(connection, query):
        nano = int(row.total_nano)
        problem = cost_problem(row, row.called_at_ms, nano, row.cost_items, prices)
        if problem is None and row.total_drift is not None:
            problem = drift_problem(row.figure, int(row.total_drift), nano)
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
    if row.flags & FLAG_REPORTED_COST:
        return _charged_figure_problem(row, nano, items, expected)
    if nano != expected:
        return f"costs {usd_from_nano(nano)} USD, its usage {usd_from_nano(expected)}"
    if items is not None and items != expected_items:
        return f"has items {items}, its usage {expected_items}"
    if row.drift_nano is not None and row.provider_cost_nano is not None:
        return drift_problem(row.provider_cost_nano, row.drift_nano, expected)
    return None


def drift_problem(figure: int, drift: int, priced: int) -> str | None:
    """What is wrong with the difference stored between the provider's figure and our price."""
    if drift == figure - priced:
        return None
    stored, true = usd_from_nano(drift), usd_from_nano(figure - priced)
    return f"the provider's figure differs from our price by {stored} USD, really by {true}"


def _charged_figure_problem(
    row: Any, nano: int, items: list[Any] | None, priced: int
) -> str | None:
    """Of a row charged the provider's own figure, or less where that is above its ceiling, which
    is its hold or, with soft budgets, more."""
    figure = row.usage.get("provider_cost_nano")
    if figure is None or figure != row.provider_cost_nano:
        return f"is charged the provider's figure, which is {figure} in its usage"
    whole = [[PROVIDER_FIGURE, nano, ATTO_PER_NANO]]
    if items is not None and items != whole:
        return f"has items {items}, the provider's figure is {whole}"
    if nano != figure and not max(row.hold_nano, priced) <= nano < figure:
        return f"costs {usd_from_nano(nano)} USD, the provider's figure is {usd_from_nano(figure)}"
    if row.drift_nano != figure - priced and not row.usage.get("passes"):
        return drift_problem(figure, row.drift_nano, priced)
    return None


def _expected(
    row: Any, at_ms: int, items: list[Any] | None, prices: Prices
) -> tuple[int, list[list[Any]] | None]:
    """The cost and items that usage and price give. Raises PricingError, TypeError."""
    usage = Usage.from_dict(row.usage)
    price = prices.price(row.price_id)
    unknown = False

    def other(model: str) -> Price | None:
        nonlocal unknown
        found = prices.other(row.price_id, model)
        unknown = unknown or found is None
        return found

    if row.ending in CHARGED_AT_HOLD:
        nano = ceiling_cost(usage, price, other)
        # Prices of a batch's other models are stored once it is settled.
        return (row.cost_nano if unknown else nano), items
    computed = cost(usage, price, other, at_s=at_ms / 1000)
    if unknown and items is not None and not row.flags & FLAG_REPORTED_COST:
        # A pass at a model no row refers to: its price is nowhere but in the items.
        return nano_from_atto(sum(count * atto for _, count, atto in items)), items
    return computed.nano, [list(item) for item in computed.items]
