"""The tables a database really has, as plain facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, inspect, text


class LiveColumn(NamedTuple):
    type: str  # as the dialect writes it: "BIGINT", "VARCHAR(128)"
    nullable: bool
    required: bool  # an insert that does not name it fails


class ForeignKey(NamedTuple):
    columns: tuple[str, ...]
    target: str  # "table.column"
    on_delete: str | None

    def __str__(self) -> str:
        return f"({', '.join(self.columns)}) -> {self.target} ON DELETE {self.on_delete}"


@dataclass(slots=True)
class LiveTable:
    columns: dict[str, LiveColumn] = field(default_factory=dict)
    primary_key: tuple[str, ...] = ()
    foreign_keys: set[ForeignKey] = field(default_factory=set)
    uniques: set[frozenset[str]] = field(default_factory=set)
    indexes: set[tuple[str, ...]] = field(default_factory=set)


def live_tables(connection: Connection) -> dict[str, LiveTable]:
    """Read everything there is. Part of every start, so in a handful of queries."""
    if connection.dialect.name == "sqlite":
        return _sqlite(connection)
    return _reflected(connection)


# The inspector asks SQLite about each table five times over; these ask four times in all.
_TABLES = "FROM sqlite_schema AS t"
_SQLITE_COLUMNS = (
    f'SELECT t.name, c.name, c.type, c."notnull", c.dflt_value, c.pk {_TABLES} '
    "JOIN pragma_table_info(t.name) AS c WHERE t.type = 'table' ORDER BY t.name, c.pk"
)
_SQLITE_FOREIGN_KEYS = (
    'SELECT t.name, f.id, f."from", f."table", f."to", f.on_delete '
    f"{_TABLES} JOIN pragma_foreign_key_list(t.name) AS f WHERE t.type = 'table'"
)
_SQLITE_INDEXES = (
    "SELECT t.name, i.name, i.origin, c.name "
    f"{_TABLES} JOIN pragma_index_list(t.name) AS i JOIN pragma_index_info(i.name) AS c "
    "WHERE t.type = 'table' ORDER BY t.name, i.name, c.seqno"
)


def _sqlite(connection: Connection) -> dict[str, LiveTable]:
    tables: dict[str, LiveTable] = {}
    for table, name, kind, not_null, default, pk in connection.exec_driver_sql(_SQLITE_COLUMNS):
        live = tables.setdefault(table, LiveTable())
        required = bool(not_null) and default is None
        live.columns[name] = LiveColumn(kind, not not_null, required)
        if pk:
            live.primary_key += (name,)
    for table, _, column, target, to, rule in connection.exec_driver_sql(_SQLITE_FOREIGN_KEYS):
        tables[table].foreign_keys.add(ForeignKey((column,), f"{target}.{to}", rule))
    columns: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for table, index, origin, column in connection.exec_driver_sql(_SQLITE_INDEXES):
        key = (table, index, origin)
        columns[key] = (*columns.get(key, ()), column)
    for (table, _, origin), names in columns.items():
        if origin == "u":
            tables[table].uniques.add(frozenset(names))
        elif origin == "c":
            tables[table].indexes.add(names)
    return tables


def partitions(connection: Connection) -> set[str]:
    """Of PostgreSQL, where each is listed as a table, too."""
    query = text("SELECT relname FROM pg_class WHERE relispartition")
    return set(connection.execute(query).scalars())


def _reflected(connection: Connection) -> dict[str, LiveTable]:
    inspector = inspect(connection)
    tables: dict[str, LiveTable] = {}
    names = sorted(set(inspector.get_table_names()) - partitions(connection))
    for table, columns in _by_table(inspector.get_multi_columns(filter_names=names)).items():
        live = tables[table] = LiveTable()
        for column in columns:
            kind = column["type"].compile(connection.dialect)
            required = not column["nullable"] and column["default"] is None
            live.columns[column["name"]] = LiveColumn(kind, column["nullable"], required)
    for table, primary in _by_table(inspector.get_multi_pk_constraint(filter_names=names)).items():
        tables[table].primary_key = tuple(primary["constrained_columns"])
    for table, keys in _by_table(inspector.get_multi_foreign_keys(filter_names=names)).items():
        tables[table].foreign_keys = {_foreign_key(key) for key in keys}
    uniques = inspector.get_multi_unique_constraints(filter_names=names)
    for table, found in _by_table(uniques).items():
        tables[table].uniques = {frozenset(unique["column_names"]) for unique in found}
    for table, indexes in _by_table(inspector.get_multi_indexes(filter_names=names)).items():
        tables[table].indexes = {tuple(index["column_names"]) for index in indexes}
    return tables


def _by_table(reflected: Mapping[Any, Any]) -> dict[str, Any]:
    return {table: facts for (_, table), facts in reflected.items()}


def _foreign_key(key: Any) -> ForeignKey:
    target = f"{key['referred_table']}.{', '.join(key['referred_columns'])}"
    return ForeignKey(tuple(key["constrained_columns"]), target, key["options"].get("ondelete"))
