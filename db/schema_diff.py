"""How the live tables differ from the models, in words."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.engine import Dialect

from db.models import Base
from db.schema_live import ForeignKey, LiveTable, live_tables

PREFIX = "ai_"


def differences(connection: Connection) -> list[str]:
    """One line per difference; empty when the tables are the models'."""
    live = live_tables(connection)
    problems = [
        f"table {name} is not Tollkeeper's"
        for name in sorted(live.keys() - Base.metadata.tables.keys())
        if name.startswith(PREFIX)
    ]
    for table in Base.metadata.sorted_tables:
        if table.name in live:
            problems.extend(_columns(table, live[table.name], connection.dialect))
            problems.extend(_keys(table, live[table.name]))
            problems.extend(_indexes(table, live[table.name]))
        else:
            problems.append(f"table {table.name} is missing")
    return problems


def _columns(table: Table, live: LiveTable, dialect: Dialect) -> Iterator[str]:
    for column in table.columns:
        name = f"{table.name}.{column.name}"
        found = live.columns.get(column.name)
        if found is None:
            yield f"column {name} is missing"
            continue
        wanted = column.type.compile(dialect)
        if found.type != wanted:
            yield f"column {name} is {found.type} instead of {wanted}"
        if found.nullable != column.nullable:
            yield f"column {name} is {'' if found.nullable else 'not '}nullable"
    for extra in live.columns.keys() - table.columns.keys():
        if live.columns[extra].required:
            yield f"column {table.name}.{extra} is not Tollkeeper's, and rows need a value for it"


def _keys(table: Table, live: LiveTable) -> Iterator[str]:
    primary = _names(table.primary_key)
    if live.primary_key != primary:
        yield f"primary key of {table.name} is not ({', '.join(primary)})"
    for constraint in sorted(table.constraints, key=lambda item: str(item.name)):
        match constraint:
            case ForeignKeyConstraint():
                wanted = ForeignKey(
                    _names(constraint), constraint.elements[0].target_fullname, constraint.ondelete
                )
                if wanted not in live.foreign_keys:
                    yield f"foreign key {table.name} {wanted} is missing"
            case UniqueConstraint() if frozenset(_names(constraint)) not in live.uniques:
                columns = ", ".join(_names(constraint))
                yield f"unique constraint on {table.name} ({columns}) is missing"


def _indexes(table: Table, live: LiveTable) -> Iterator[str]:
    for index in sorted(table.indexes, key=lambda item: str(item.name)):
        if _names(index) not in live.indexes:
            yield f"index {index.name} on {table.name} is missing"


def _names(constraint: Any) -> tuple[str, ...]:
    return tuple(column.name for column in constraint.columns)
