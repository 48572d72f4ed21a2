"""The rows that cost rows refer to: found by name, made on first use, remembered by id.

Everything remembered is committed: the ledger calls `forget` when a transaction fails.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from db.journal_records import Hold, Window
from db.ledger_types import DescribePrice, PriceDescription
from db.models import (
    ApiKey,
    Base,
    Budget,
    ChargeSet,
    ChargeSetWindow,
    ModelCost,
    Organization,
    PriceVersion,
    Project,
    Team,
    User,
)
from db.models import Window as WindowRow
from db.statements import insert_new, table_of

PRINCIPALS: tuple[type[Base], ...] = (ApiKey, Organization, Team, Project)
REMEMBERED_MAX = 100_000  # entries of one kind; beyond it, all of that kind are looked up again
NOT_DESCRIBED = PriceDescription("", "", "unknown", "", [], {})


class UnknownReference(Exception):
    """A record names something the database does not have; the text says what."""


class Referred(NamedTuple):
    """The ids a row refers to."""

    charge_set_id: int | None
    user_id: int | None
    price_id: int | None


class References:
    def __init__(self, describe_price: DescribePrice, now_ms: Callable[[], int]) -> None:
        self._describe_price = describe_price
        self._now_ms = now_ms
        self.forget()

    def forget(self) -> None:
        self._rows: dict[tuple[Any, ...], Referred] = {}
        self._principals: set[tuple[int, int, int, int]] = set()
        self._units: dict[int, str] = {}
        self._windows: dict[Window, int] = {}
        self._users: dict[tuple[int, str], int] = {}
        self._prices: dict[tuple[str, str], int] = {}
        self._charge_sets: dict[tuple[Window, ...], int | None] = {}

    def trim(self) -> None:
        """Bound what is remembered; between transactions."""
        kinds: tuple[Any, ...] = (
            self._principals,
            self._windows,
            self._users,
            self._prices,
            self._charge_sets,
        )
        for kind in kinds:
            if len(kind) > REMEMBERED_MAX:
                kind.clear()

    def of_row(
        self,
        connection: Connection,
        hold: Hold,
        windows: tuple[Window, ...],
        price_version: str,
        model: str,
    ) -> Referred:
        """Everything a row refers to, in one look. Raises UnknownReference."""
        key = (
            hold.key_id,
            hold.organization_id,
            hold.team_id,
            hold.project_id,
            hold.user,
            windows,
            price_version,
            model,
        )
        known = self._rows.get(key)
        if known is None:
            self.check_principal(connection, hold)
            known = self._rows[key] = Referred(
                self.charge_set_id(connection, windows),
                self.user_id(connection, hold),
                self.price_id(connection, price_version, model),
            )
        return known

    def check_principal(self, connection: Connection, hold: Hold) -> None:
        who = (hold.key_id, hold.organization_id, hold.team_id, hold.project_id)
        if who in self._principals:
            return
        for model, id_ in zip(PRINCIPALS, who, strict=True):
            table = table_of(model)
            if id_ == 0 and model is Project:
                continue
            if connection.execute(select(table.c.id).where(table.c.id == id_)).first() is None:
                raise UnknownReference(f"{table.name} has no row {id_}")
        self._principals.add(who)

    def user_id(self, connection: Connection, hold: Hold) -> int | None:
        if not hold.user:
            return None
        identity = (hold.organization_id, _storable(hold.user, 128))
        known = self._users.get(identity)
        if known is None:
            keys = {"organization_id": identity[0], "name": identity[1]}
            values = {"email": "", "source": "header", "created_at_ms": self._now_ms()}
            known = self._users[identity] = _find_or_make(connection, User, keys, values)
        return known

    def price_id(self, connection: Connection, version: str, model: str) -> int | None:
        """None: nothing was priced."""
        if not version or not model:
            return None
        known = self._prices.get((version, model))
        if known is None:
            described = self._describe_price(version, model) or NOT_DESCRIBED
            version_id = self.version_id(connection, version, described)
            keys = {"price_version_id": version_id, "model": _storable(model, 256)}
            known = _find_or_make(connection, ModelCost, keys, {"entry": described.entry})
            self._prices[version, model] = known
        return known

    def version_id(self, connection: Connection, version: str, is_: PriceDescription) -> int:
        values = {
            "table_id": is_.table_id,
            "sha256": is_.sha256,
            "source": is_.source,
            "effective_from": is_.effective_from,
            "overlays": is_.overlays,
            "created_at_ms": self._now_ms(),
        }
        return _find_or_make(connection, PriceVersion, {"version": _storable(version, 96)}, values)

    def unit(self, connection: Connection, budget_id: int) -> str:
        unit = self._units.get(budget_id)
        if unit is None:
            query = select(Budget.unit).where(Budget.id == budget_id)
            unit = connection.execute(query).scalar_one_or_none()
            if unit is None:
                raise UnknownReference(f"{Budget.__tablename__} has no row {budget_id}")
            self._units[budget_id] = unit
        return unit

    def window_id(self, connection: Connection, window: Window) -> int:
        known = self._windows.get(window)
        if known is None:
            self.unit(connection, window[0])
            keys = {"budget_id": window[0], "starts_at": window[1]}
            values = dict.fromkeys(("committed", "overage", "extra", "lowered_from", "spared"), 0)
            known = self._windows[window] = _find_or_make(connection, WindowRow, keys, values)
        return known

    def charge_set_id(self, connection: Connection, windows: tuple[Window, ...]) -> int | None:
        """None: no budget applied."""
        if windows in self._charge_sets:
            return self._charge_sets[windows]
        made = self._charge_sets[windows] = self._make_charge_set(connection, windows)
        return made

    def _make_charge_set(self, connection: Connection, windows: tuple[Window, ...]) -> int | None:
        if not windows:
            return None
        ids = sorted({self.window_id(connection, window) for window in windows})
        digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
        set_id = _find_or_make(connection, ChargeSet, {"digest": digest}, {})
        table = table_of(ChargeSetWindow)
        members = [{"charge_set_id": set_id, "window_id": id_} for id_ in ids]
        connection.execute(insert_new(connection, table, ("charge_set_id", "window_id")), members)
        return set_id


def _storable(text: str, chars_max: int) -> str:
    """PostgreSQL takes no NUL and no more than the column's length."""
    return text.replace("\0", "")[:chars_max]


def _find_or_make(
    connection: Connection, model: type[Base], keys: dict[str, Any], values: dict[str, Any]
) -> int:
    table = table_of(model)
    query = select(table.c.id).where(*(table.c[name] == value for name, value in keys.items()))
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        connection.execute(insert_new(connection, table, list(keys)), {**keys, **values})
        found = connection.execute(query).scalar_one()
    return int(found)
