"""Corrections: what calls have cost so far, the rows of differences, and their money.

A correction is one row, charged to the budgets of its call or to none. Where earlier ones were
charged to none and this one is not, there is a second row, which takes those back: what budgets
were charged is then what the call costs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, insert, select

from db.journal_records import CHARGED_AT_HOLD, FLAG_REPORTED_COST, FLAG_UNPRICED, FLAGS_OVERAGE
from db.ledger_booking import BOOK_LEASES, BOOK_WINDOWS, lock_leases, lock_windows
from db.ledger_rollups import roll_up
from db.ledger_rows import COLUMNS, JSON_COLUMNS, Row, encode_json, total_tokens
from db.ledger_types import Adjusted, Correction, LedgerError
from db.models import Budget, ChargeSetWindow, CostAdjustment, UsageCost, Window
from db.references import References
from db.registry import ADJUSTMENTS
from db.statements import INSERT_COSTS, Statement, table_of

SUMMED = (
    "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_nano", "charged_tokens", "drift_nano",
)  # fmt: skip
NOT_OF_CORRECTIONS = FLAGS_OVERAGE | FLAG_UNPRICED | FLAG_REPORTED_COST
COST, DRIFT, CHARGE_SET = (
    COLUMNS.index(name) for name in ("cost_nano", "drift_nano", "charge_set_id")
)
_COSTS = table_of(UsageCost)
# What an adjustment repeats of its call. Tags as their text, which is how rows are inserted.
_OF_CALLS = (
    *(_COSTS.c[name] for name in COLUMNS if name not in JSON_COLUMNS),
    cast(_COSTS.c.tags, Text).label("tags"),
)
_NAMED = ("call_id", "repricing_id", "from_price_id", "to_price_id")
INSERT_ADJUSTMENTS = Statement(
    lambda _: insert(table_of(CostAdjustment)).values({name: bindparam(name) for name in _NAMED}),
    _NAMED,
)

Sums = dict[str, int]


class UnknownCall(LedgerError):
    """A correction of a call that has no row."""


class CallSoFar:
    """A call with its corrections: what its budgets were charged, and what they were not."""

    def __init__(self, original: Mapping[Any, Any]) -> None:
        self.original = original
        self.charged: Sums = {name: original[name] or 0 for name in SUMMED}
        self.kept: Sums = dict.fromkeys(SUMMED, 0)
        self.price_id: int | None = original["price_id"]
        self.corrections: set[bytes] = set()

    def add(self, correction: Mapping[Any, Any]) -> None:
        """The next correction, in the order of ids."""
        in_budgets = correction["charge_set_id"] == self.original["charge_set_id"]
        sums = self.charged if in_budgets else self.kept
        for name in SUMMED:
            sums[name] += correction[name] or 0
        self.price_id = correction["price_id"]
        self.corrections.add(correction["call_id"])

    def rows(self, correction: Correction, price_id: int | None) -> Iterator[Row]:
        """The differences that make this correction true."""
        true = _true_sums(correction, self.original)
        values = _values(correction, self.original, price_id)
        if correction.restate and self.original["charge_set_id"] is not None:
            yield _row(values, {name: true[name] - self.charged[name] for name in SUMMED})
            if any(self.kept.values()):
                values |= {"call_id": _second_id(correction.call_id), "charge_set_id": None}
                yield _row(values, {name: -self.kept[name] for name in SUMMED})
            return
        values["charge_set_id"] = None
        yield _row(
            values, {name: true[name] - self.charged[name] - self.kept[name] for name in SUMMED}
        )


def _true_sums(correction: Correction, original: Mapping[Any, Any]) -> Sums:
    usage = correction.usage
    figure = original["provider_cost_nano"]
    true: Sums = {name: usage.get(name, 0) for name in SUMMED}
    return true | {
        "cost_nano": correction.cost_nano,
        "charged_tokens": total_tokens(usage),
        "drift_nano": 0 if figure is None else figure - correction.cost_nano,
    }


def _values(
    correction: Correction, original: Mapping[Any, Any], price_id: int | None
) -> dict[str, Any]:
    """A correction's row but for its differences: usage, price and items whole."""
    lost = original["ending"] in CHARGED_AT_HOLD
    items = correction.cost_items
    flags = original["flags"] & ~NOT_OF_CORRECTIONS
    return dict(original) | {
        "call_id": correction.call_id,
        "adjusts": correction.adjusts,
        "at_ms": correction.at_ms,
        "ending": correction.ending or ("complete" if lost else original["ending"]),
        "usage": encode_json(correction.usage).decode(),
        "usage_source": correction.usage_source,
        "price_id": price_id,
        "cost_items": None if items is None else encode_json(items).decode(),
        "hold_nano": 0,
        "charged_requests": 0,
        "flags": flags | FLAG_UNPRICED if correction.unpriced else flags,
    }


def _row(values: Mapping[str, Any], differences: Sums) -> Row:
    row = dict(values) | differences
    if row["provider_cost_nano"] is None:
        row["drift_nano"] = None
    row["provider_cost_nano"] = None  # stands in the call's own row
    return tuple(row[name] for name in COLUMNS)


def _second_id(call_id: bytes) -> bytes:
    return call_id[:-1] + bytes((call_id[-1] ^ 1,))


# --- the transaction -----------------------------------------------------------------------


def adjust(
    connection: Connection,
    references: References,
    corrections: Sequence[Correction],
    host_id: str,
    repricing_id: int | None = None,
) -> Adjusted:
    """Book corrections, at most one per call, under the epoch of no host; those that were booked
    before are left out, and in a repricing those that change nothing. Raises UnknownCall."""
    calls = _read_calls(connection, [each.adjusts for each in corrections])
    rows: list[Row] = []
    named: list[Row] = []
    adjusted = 0
    for correction in corrections:
        call = calls.get(correction.adjusts)
        if call is None:
            raise UnknownCall(f"call {correction.adjusts.hex()} has no row")
        if correction.call_id in call.corrections:
            continue
        price_id = references.price_id(connection, correction.price_version, correction.model)
        more = list(call.rows(correction, price_id))
        if repricing_id is not None and not any(row[COST] for row in more):
            continue
        adjusted += 1
        rows += more
        named += [(row[0], repricing_id, call.price_id, price_id) for row in more]
    if rows:
        INSERT_COSTS.many(connection, rows)
        INSERT_ADJUSTMENTS.many(connection, named)
        roll_up(connection, rows, host_id, calls=0)
        _book(connection, rows)
    return Adjusted(adjusted, sum(row[COST] for row in rows))


def _read_calls(connection: Connection, call_ids: Sequence[bytes]) -> dict[bytes, CallSoFar]:
    """Calls and their corrections, locked in the order of ids."""
    query = (
        select(*_OF_CALLS)
        .where(_COSTS.c.call_id.in_(call_ids), _COSTS.c.adjusts.is_(None))
        .order_by(_COSTS.c.call_id)
        .with_for_update()
    )
    found = connection.execute(query).mappings().all()
    calls = {row["call_id"]: CallSoFar(row) for row in found}
    columns = [_COSTS.c[name] for name in ("call_id", "adjusts", "charge_set_id", "price_id")]
    corrections = (
        select(*columns, *(_COSTS.c[name] for name in SUMMED))
        .where(_COSTS.c.adjusts.in_(call_ids))
        .order_by(_COSTS.c.call_id)
    )
    for row in connection.execute(corrections).mappings():
        calls[row["adjusts"]].add(row)
    return calls


def _book(connection: Connection, rows: Iterable[Row]) -> None:
    """Charge rows to the windows of their charge sets, whatever is left there: the calls were
    made. Granted and committed follow, so nothing is taken from what others hold."""
    changes: dict[int, int] = {}
    charged: dict[int, Sums] = {}
    for row in rows:
        if row[CHARGE_SET] is not None:
            sums = charged.setdefault(row[CHARGE_SET], {"usd": 0, "tokens": 0, "requests": 0})
            sums["usd"] += row[COST]
            sums["tokens"] += row[COLUMNS.index("charged_tokens")]
    for charge_set_id, sums in charged.items():
        for window_id, unit in _windows_of(connection, charge_set_id):
            changes[window_id] = changes.get(window_id, 0) + sums[unit]
    if not changes:
        return
    order = sorted(changes)
    leases = lock_leases(connection, ADJUSTMENTS, order)
    lock_windows(connection, order)
    booked = [(leases[id_], changes[id_], id_) for id_ in order]
    BOOK_LEASES.many(
        connection,
        [(was.granted + more, was.spent + more, id_, ADJUSTMENTS) for was, more, id_ in booked],
    )
    BOOK_WINDOWS.many(connection, [(more, 0, id_) for _, more, id_ in booked])


def _windows_of(connection: Connection, charge_set_id: int) -> list[tuple[int, str]]:
    """(window id, unit of its budget)."""
    query = (
        select(Window.id, Budget.unit)
        .join(ChargeSetWindow, ChargeSetWindow.window_id == Window.id)
        .join(Budget, Budget.id == Window.budget_id)
        .where(ChargeSetWindow.charge_set_id == charge_set_id)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]
