"""What past calls would have cost at other models: the same usage at other prices.

Token counts are taken as they are, although another model would count and answer differently.
Every call that cannot be priced so is counted with the reason; nothing is left out silently.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import reader
from db.errors import ReportError
from db.journal_records import CHARGED_AT_HOLD
from db.ledger_types import Read
from db.models import UsageCost
from db.report_dimensions import ROWS, check_dimensions, expression, from_clause, labels
from db.report_filters import Filters
from db.report_sums import conditions
from db.repricing_prices import decode_usage
from db.repricing_read import Selection, StoredCall, read_page
from db.retention import require_rows
from pricing.book import PriceBook
from pricing.calculator import ceiling_cost, cost
from pricing.price import Price
from pricing.usage import Usage

GROUPS_MAX = 10_000
NO_USAGE = "no usage"
TOO_LONG = "input beyond its window"
NO_TOKENS = "other kind of model"


@dataclass(slots=True)
class Repriced:
    """One group at one model. Amounts in nano-USD."""

    calls: int = 0
    cost_nano: int = 0  # of all its calls, as they were
    priced: int = 0
    priced_nano: int = 0  # of those that the other model has a price for, as they were
    other_nano: int = 0  # the same at the other model
    estimated: int = 0  # of those priced: their usage is an estimate, or a ceiling
    not_priced: Counter[str] = field(default_factory=Counter)  # reason -> calls


class Key(NamedTuple):
    group: tuple[Any, ...]
    model: str


async def what_if(
    engine: AsyncEngine,
    book: PriceBook,
    models: Sequence[str],
    by: Sequence[str],
    filters: Filters,
    until_ms: int,
    teams: Mapping[int, tuple[str, str]],
) -> dict[Key, Repriced]:
    """By names of the groups and each of `models` ("provider/model"). Raises ReportError."""
    check_dimensions(by)
    for model in models:
        if _quoted(book, model) is None:
            raise ReportError(
                f"no price for {model!r}: name it PROVIDER/MODEL, as in `prices show`"
            )
    async with reader(engine).connect() as connection:
        await require_rows(connection, filters.since_ms, "what-if")
    found: dict[Key, Repriced] = {}
    selection = Selection(filters.since_ms, filters.until_ms or until_ms)
    async for call, group in _calls(engine, selection, by, filters):
        own = book.for_team(*teams.get(call.team_id, ("", "")))
        usage = None if call.usage is None else Usage.from_dict(decode_usage(call.usage))
        for model in models:
            sums = found.setdefault(Key(group, model), Repriced())
            _add(sums, call, usage, _quoted(own, model))
        if len(found) > GROUPS_MAX:
            raise ReportError(f"more than {GROUPS_MAX} groups: ask for fewer dimensions")
    return await _named(engine, by, found)


def _quoted(book: PriceBook, name: str) -> Price | None:
    provider, _, model = name.partition("/")
    price = book.quote(provider, model) if model else None
    return None if price is None or price.unpriced else price


async def _calls(
    engine: AsyncEngine, selection: Selection, by: Sequence[str], filters: Filters
) -> AsyncIterator[tuple[StoredCall, tuple[Any, ...]]]:
    """Each call as its last row has it, with what it is grouped by."""
    after: Read | None = None
    while page := await read_page(engine, selection, after):
        groups = await _groups(engine, [call.call_id for call in page], by, filters)
        for call in page:
            if call.call_id in groups:
                yield call, groups[call.call_id]
        after = Read(page[-1].at_ms, page[-1].call_id)


async def _groups(
    engine: AsyncEngine, call_ids: Sequence[bytes], by: Sequence[str], filters: Filters
) -> dict[bytes, tuple[Any, ...]]:
    columns = [expression(ROWS, name).label(f"d{n}") for n, name in enumerate(by)]
    async with reader(engine).connect() as connection:
        query = (
            select(UsageCost.call_id, *columns)
            .select_from(from_clause(ROWS, {*by, *filters.where}))
            .where(UsageCost.call_id.in_(call_ids))
            .where(*await conditions(connection, ROWS, Filters(where=filters.where)))
        )
        return {row[0]: tuple(row[1:]) for row in await connection.execute(query)}


def _add(sums: Repriced, call: StoredCall, usage: Usage | None, price: Price | None) -> None:
    sums.calls += 1
    sums.cost_nano += call.cost_nano
    reason = _why_not(usage, price)
    if reason or usage is None or price is None:
        sums.not_priced[reason] += 1
        return
    sums.priced += 1
    sums.priced_nano += call.cost_nano
    sums.estimated += call.usage_source == "estimated"
    if call.ending in CHARGED_AT_HOLD:  # its usage is the most it could be
        sums.other_nano += ceiling_cost(usage, price)
    else:
        sums.other_nano += cost(usage, price, at_s=call.at_ms / 1000).nano


def _why_not(usage: Usage | None, price: Price | None) -> str:
    """Why a usage has no price at a model; "" if it has."""
    if price is None:
        return "no price for this team"
    if usage is None:
        return NO_USAGE
    if usage.input_tokens > (price.max_input_tokens or usage.input_tokens):
        return TOO_LONG
    if usage.total_tokens and (price.by_units or (usage.output_tokens and not price.generates)):
        return NO_TOKENS
    counts = [usage.units, *(part.units for _, part in usage.passes)]
    for units in counts:
        for name, count in units.items():
            if count and price.unit_atto(name, usage.service_tier) is None:
                return f"no price of {name}"
    return ""


async def _named(
    engine: AsyncEngine, by: Sequence[str], found: dict[Key, Repriced]
) -> dict[Key, Repriced]:
    async with reader(engine).connect() as connection:
        names = [
            await labels(connection, name, list({key.group[n] for key in found}))
            for n, name in enumerate(by)
        ]
    return {
        Key(tuple(names[n][value] for n, value in enumerate(key.group)), key.model): sums
        for key, sums in found.items()
    }
