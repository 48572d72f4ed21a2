"""A ledger with something of everything in it, and no mistake."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, update

from db.models import Budget, ChargeSet, ChargeSetWindow, Epoch, Window
from tests.factories import (
    NOW_MS,
    KeyIds,
    a_lease,
    a_row,
    a_stored_key,
    a_stored_price,
    an_adjustment,
    insert_rows,
    roll_up,
    stored,
)

COST = 100_000  # of `a_row`: 100 tokens in at 250, 50 out at 1,500 nano-USD
CEILING = {"input_tokens": 1000, "output_tokens": 500}
CEILING_COST = 1_000_000


@dataclass
class Books:
    """A ledger with a budget per unit on the same calls: window ids by unit."""

    key: KeyIds
    price_id: int
    epoch_id: int
    charge_set_id: int
    windows: dict[str, int]
    rows: list[bytes]  # complete, lost, unreachable, corrected, its correction


def clean_books(connection: Connection) -> Books:
    key = a_stored_key(connection)
    price_id = a_stored_price(connection)
    epoch_id = stored(
        connection, Epoch,
        host_id="host", boot_id="boot", state="open", opened_at_ms=NOW_MS, seen_at_ms=NOW_MS,
    )  # fmt: skip
    windows = {unit: _window(connection, unit) for unit in ("usd", "tokens", "requests")}
    set_id = stored(connection, ChargeSet, digest="0" * 64)
    members = [{"charge_set_id": set_id, "window_id": id_} for id_ in windows.values()]
    connection.execute(insert(ChargeSetWindow), members)
    common = {"charge_set_id": set_id, "price_id": price_id}
    lost = {
        "ending": "lost", "usage": CEILING, "cost_nano": CEILING_COST, "cost_items": None,
        "charged_tokens": 1500,
    }  # fmt: skip
    unreachable = {
        "ending": "unreachable", "usage": None, "usage_source": "none", "cost_nano": 0,
        "cost_items": None, "charged_tokens": 0,
    }  # fmt: skip
    corrected = a_row(key, **common, **lost)
    correction = a_row(
        key, **common, adjusts=corrected["call_id"], cost_nano=COST - CEILING_COST,
        cost_items=None, charged_tokens=150 - 1500, charged_requests=0,
    )  # fmt: skip
    rows = [
        a_row(key, **common),
        a_row(key, **common, **lost),
        a_row(key, **common, **unreachable),
        corrected,
        correction,
    ]
    insert_rows(connection, *rows)
    roll_up(connection, *rows)
    an_adjustment(connection, correction, from_price_id=price_id)
    spent = {"usd": COST + 2 * CEILING_COST, "tokens": 150 + 2 * 1500, "requests": 4}
    adjusted = {"usd": COST - CEILING_COST, "tokens": 150 - 1500, "requests": 0}
    for unit, window_id in windows.items():
        granted = spent[unit] + 1000  # 1000 is in somebody's slice
        a_lease(connection, window_id, epoch_id, granted, spent[unit])
        a_lease(connection, window_id, 0, adjusted[unit], adjusted[unit])
        committed = update(Window).where(Window.id == window_id)
        connection.execute(committed.values(committed=granted + adjusted[unit]))
    return Books(key, price_id, epoch_id, set_id, windows, [row["call_id"] for row in rows])


def _window(connection: Connection, unit: str) -> int:
    budget_id = stored(
        connection, Budget,
        identity=f"organization/acme|{unit}|day", scope_kind="organization", unit=unit,
        limit_value=10_000_000, period="day", source="config", created_at_ms=NOW_MS,
    )  # fmt: skip
    return stored(connection, Window, budget_id=budget_id, starts_at=0)


def changed(model, where, **values):
    """A function that damages rows."""
    return lambda connection: connection.execute(update(model).where(*where).values(**values))
