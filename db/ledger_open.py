"""Settling open calls: what a provider took and bills later, once its final usage is known.

The call was charged its hold. The difference is booked as a correction, under the price version
and for the time of the call, in the transaction that marks its object as settled: exactly once.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select, update

from db.journal_records import Window
from db.ledger_corrections import adjust
from db.ledger_objects import OBJECTS
from db.ledger_types import Correction, Settled
from db.models import Budget, ChargeSetWindow, ModelCost, PriceVersion, UsageCost
from db.models import Window as WindowRow
from db.references import References
from db.statements import table_of
from pricing.batch import in_one_band, merged
from pricing.book import PriceBook, split_key
from pricing.calculator import Cost, cost
from pricing.errors import PricingError
from pricing.price import Price
from pricing.usage import Usage

SETTLED_AT_ONCE = 50  # calls: a transaction that nobody waits long for
FindBook = Callable[[str], PriceBook | None]  # by price version; None: its table is not here

_COSTS = table_of(UsageCost)
_NOTHING = Cost(0, [])


class _Priced(NamedTuple):
    usage: Usage
    price: Price | None
    cost: Cost
    others: Sequence[Price] = ()


def settle_open(
    connection: Connection, references: References, find_book: FindBook, now_ms: int, host_id: str
) -> tuple[list[Settled], list[str]]:
    """Some of the calls that are ready, and why others cannot be settled. The latter are not tried
    again until more is known of them."""
    query = (
        select(OBJECTS)
        .where(OBJECTS.c.ready.is_(True))
        .order_by(OBJECTS.c.id)
        .limit(SETTLED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    settled: list[Settled] = []
    problems: list[str] = []
    for row in connection.execute(query).all():
        done = _settle(connection, references, find_book, row, now_ms, host_id)
        values: dict[str, Any] = {"ready": False}
        if isinstance(done, str):
            if done:
                problems.append(f"{row.kind} {row.object_id}: {done}")
            else:
                values["result"] = None
        else:
            adjustment_id, outcome = done
            values["adjustment_id"] = adjustment_id
            settled.append(outcome)
        connection.execute(update(OBJECTS).where(OBJECTS.c.id == row.id).values(**values))
    return settled, problems


def try_again(connection: Connection) -> None:
    """Offer those that could not be settled: a table may be here by now."""
    unsettled = (
        OBJECTS.c.call_id.is_not(None),
        OBJECTS.c.result.is_not(None),
        OBJECTS.c.adjustment_id.is_(None),
    )
    connection.execute(update(OBJECTS).where(*unsettled).values(ready=True))


def _settle(
    connection: Connection,
    references: References,
    find_book: FindBook,
    row: Any,
    now_ms: int,
    host_id: str,
) -> tuple[bytes, Settled] | str:
    """Why not: "" where the result says too little, and a better one may come."""
    call = _read_call(connection, row.call_id)
    if call is None or call.version is None:
        return "its call has no price"
    book = find_book(call.version)
    if book is None:
        return f"the table of price version {call.version} is not here"
    result, bound = row.result, _usage(call.usage or {})
    if result.get("total") and not _tells_all(book, call.key, bound):
        return ""
    try:
        priced = _priced(book, call.key, result, row.estimate, call.at_ms)
    except (PricingError, TypeError, ValueError) as exc:
        return f"its usage cannot be priced: {exc}"
    if priced.price is None:
        return "its models have no price"
    for other in priced.others:  # what rows refer to must be stored, so that they can be verified
        references.price_id(connection, call.version, other.key)
    correction = Correction(
        call_id=_adjustment_id(connection, row.call_id, now_ms),
        adjusts=row.call_id,
        at_ms=call.at_ms,
        usage=priced.usage.as_dict(),
        usage_source=str(result.get("source", "reported")),
        price_version=call.version,
        model=priced.price.key,
        cost_nano=priced.cost.nano,
        cost_items=priced.cost.items,
        ending=str(result.get("ending", "complete")),
        unpriced=priced.price.unpriced,
    )
    change = adjust(connection, references, [correction], host_id).nano
    windows = _windows(connection, call.charge_set_id)
    return correction.call_id, Settled(row.call_id, priced.cost.nano, change, windows)


def _read_call(connection: Connection, call_id: bytes) -> Any:
    query = (
        select(
            _COSTS.c.at_ms,
            _COSTS.c.usage,
            _COSTS.c.charge_set_id,
            ModelCost.model.label("key"),
            PriceVersion.version,
        )
        .join(ModelCost, _COSTS.c.price_id == ModelCost.id, isouter=True)
        .join(PriceVersion, ModelCost.price_version_id == PriceVersion.id, isouter=True)
        .where(_COSTS.c.call_id == call_id)
    )
    return connection.execute(query).one_or_none()


def _usage(stored: Any) -> Usage:
    data = msgspec.json.decode(stored) if isinstance(stored, (str, bytes)) else dict(stored)
    return Usage.from_dict(data)


def _tells_all(book: PriceBook, key: str, bound: Usage) -> bool:
    """Whether a batch's total of tokens is enough to price it: no tools, and no request of it can
    have been billed at the rates of a larger context."""
    price = book.by_key(key)
    return price is not None and not bound.passes and not bound.units and in_one_band(price, bound)


def _priced(
    book: PriceBook, key: str, result: dict[str, Any], estimate: Any, at_ms: int
) -> _Priced:
    own = book.by_key(key)
    groups: Sequence[Any] = result.get("groups") or []
    if result.get("source") == "estimated":
        groups = [[[], (estimate or {}) | dict(each[1])] for each in groups]
    if not groups:
        return _Priced(Usage(), own, _NOTHING)
    book, provider = book.of_key(key), split_key(key)[0].partition("/")[0]
    found: list[tuple[Price, Usage]] = []
    for names, usage in groups:
        price = book.quote(provider, *names) or own
        if price is None:
            return _Priced(Usage(), None, _NOTHING)
        found.append((price, Usage.from_dict(usage)))
    # Unnamed passes are of the call's own price, where it is among them.
    found.sort(key=lambda each: own is None or each[0].key != own.key)
    price, usage = merged(found)
    prices = {each.model: each for each, _ in found}
    others = [each for each in prices.values() if each.key != price.key]
    return _Priced(usage, price, cost(usage, price, prices.get, at_s=at_ms / 1000), others)


def _adjustment_id(connection: Connection, call_id: bytes, now_ms: int) -> bytes:
    """A UUIDv7 that follows the ids of the call's earlier corrections."""
    last = (
        select(_COSTS.c.call_id)
        .where(_COSTS.c.adjusts == call_id)
        .order_by(_COSTS.c.call_id.desc())
        .limit(1)
    )
    former = connection.execute(last).scalar_one_or_none()
    at_ms = max(now_ms, int.from_bytes((former or b"")[:6], "big") + 1)
    random = hashlib.sha256(b"settled" + call_id).digest()
    return (
        at_ms.to_bytes(6, "big")
        + bytes((0x70 | (random[0] & 0x0F), random[1], 0x80 | (random[2] & 0x3F)))
        + random[3:10]
    )


def _windows(connection: Connection, charge_set_id: int | None) -> list[Window]:
    if charge_set_id is None:
        return []
    query = (
        select(WindowRow.budget_id, WindowRow.starts_at)
        .join(ChargeSetWindow, ChargeSetWindow.window_id == WindowRow.id)
        .join(Budget, Budget.id == WindowRow.budget_id)
        .where(ChargeSetWindow.charge_set_id == charge_set_id)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]
