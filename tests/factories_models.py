"""A row of any table: `a_stored_row(connection, Model)` makes the rows it refers to, too.

Values follow from the columns: their types, their lengths, what they refer to. A model of which
rows look otherwise says so in `USUAL`; one with a default or NULL for everything needs nothing.
"""

import itertools
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    insert,
)

from db.models import (
    Base,
    Budget,
    CostAnalytics,
    Epoch,
    ModelCost,
    Organization,
    PriceVersion,
    Project,
    Repricing,
    Revision,
    Team,
    UsageCost,
    User,
)
from db.statements import table_of
from tests.factories import NOW_MS, KeyIds, a_row, a_uuid7, an_entry

_numbers = itertools.count(1)

MODELS: dict[str, type[Base]] = {
    table_of(mapper.class_).name: mapper.class_ for mapper in Base.registry.mappers
}
_DECLARED = {"source": "config", "created_at_ms": NOW_MS}


def _a_cost_row(_number: int) -> dict[str, Any]:
    """Whose it is comes with the rows it refers to."""
    row = a_row(KeyIds(0, 0, 0))
    return {name: row[name] for name in row.keys() - KeyIds._fields}


def _a_rollup(number: int) -> dict[str, Any]:
    hour = NOW_MS // 3_600_000
    return {"shard": f"{hour}:host:{number}", "hour": hour, "provider": "openai", "calls": 1}


def _a_budget(number: int) -> dict[str, Any]:
    identity = f"organization/acme-{number}|usd|day"
    values = {"scope_kind": "organization", "unit": "usd", "period": "day", "limit_value": 10**9}
    return {"identity": identity, **values, **_DECLARED}


USUAL: dict[type[Base], Callable[[int], dict[str, Any]]] = {
    Budget: _a_budget,
    CostAnalytics: _a_rollup,
    Epoch: lambda number: {"state": "open"},
    ModelCost: lambda number: {"model": f"openai/model-{number}", "entry": an_entry()},
    PriceVersion: lambda number: {"effective_from": "2026-01-01"},
    Repricing: lambda number: {"until_ms": NOW_MS, "restated": False, "started_at_ms": NOW_MS},
    Revision: lambda number: {"id": 2 + number % 10_000},
    UsageCost: _a_cost_row,
    **dict.fromkeys((Organization, Project, Team, User), lambda number: _DECLARED),
}


def a_stored_row(connection: Connection, model: type[Base], /, **values: Any) -> dict[str, Any]:
    """Insert a row, with whatever parents it needs; returns it as it is stored."""
    table = table_of(model)
    number = next(_numbers)
    usual = USUAL[model](number) if model in USUAL else {}
    row = usual | values
    for column in table.columns:
        if column.name not in row and _is_needed(table, column):
            row[column.name] = _value(connection, column, number)
    stored = connection.execute(insert(table).returning(*table.columns), row).mappings().one()
    return dict(stored)


def the_reference(column: Column[Any]) -> ForeignKey:
    (reference,) = column.foreign_keys
    return reference


def _is_needed(table: Table, column: Column[Any]) -> bool:
    made = column is table.autoincrement_column or column.default or column.server_default
    return not made and not column.nullable


def _value(connection: Connection, column: Column[Any], number: int) -> Any:
    if column.foreign_keys:
        target = the_reference(column).column
        return a_stored_row(connection, MODELS[target.table.name])[target.name]
    match column.type:
        case String(length=length):
            return f"{column.name}-{number}"[-(length or 64) :]
        case LargeBinary():
            return a_uuid7()
        case Boolean():
            return False
        case JSON():
            return {}
        case SmallInteger():
            return 1
    return NOW_MS if column.name.endswith("_ms") else number
