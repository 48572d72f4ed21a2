"""Statements whose parameters come as tuples, compiled once per dialect.

SQLAlchemy's own execution of a list of dictionaries costs several times what the database needs
for the rows; handing the driver its SQL and tuples keeps a flush cheap.
"""

from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    CursorResult,
    Table,
    Text,
    bindparam,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import sqlite

from db.ledger_rows import (
    COLUMNS,
    DAY_COLUMNS,
    JSON_COLUMNS,
    ROLLUP_COLUMNS,
    ROLLUP_SUMS,
    Row,
)
from db.models import Base, CostAnalytics, CostDay, FoldedDay, JournalOffset, Lease, UsageCost
from db.pauses import Pieces

JULIAN_1970 = 2440587.5
MS_PER_DAY = 86_400_000


def table_of(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


def insert_new(connection: Connection, table: Table, keys: Sequence[str]) -> Any:
    """INSERT ... ON CONFLICT (keys) DO NOTHING, in the connection's dialect."""
    return _dialect(connection).insert(table).on_conflict_do_nothing(index_elements=list(keys))


def database_now_ms(connection: Connection) -> Any:
    """The database's clock, as an SQL expression in unix milliseconds."""
    if connection.dialect.name == "postgresql":
        return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
    return cast((func.julianday("now") - JULIAN_1970) * MS_PER_DAY, BigInteger)


def _dialect(connection: Connection) -> Any:
    if connection.dialect.name != "postgresql":
        return sqlite
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - SQLite does without its drivers

    return postgresql


class Statement:
    """`build` makes the statement for a dialect module; parameters are bound by position, in the
    order of `parameters`."""

    def __init__(self, build: Callable[[Any], Any], parameters: tuple[str, ...]) -> None:
        self._build = build
        self._parameters = parameters
        self._compiled: dict[str, tuple[str, Callable[[Row], Row] | None]] = {}

    def many(self, connection: Connection, rows: list[Row]) -> CursorResult[Any]:
        sql, ordered = self._sql(connection)
        if ordered is not None:
            rows = list(map(ordered, rows))
        return connection.exec_driver_sql(sql, Pieces(rows))

    def one(self, connection: Connection, row: Row) -> CursorResult[Any]:
        sql, ordered = self._sql(connection)
        if ordered is not None:
            row = ordered(row)
        return connection.exec_driver_sql(sql, row)

    def _sql(self, connection: Connection) -> tuple[str, Callable[[Row], Row] | None]:
        name = connection.dialect.name
        known = self._compiled.get(name)
        if known is None:
            statement = self._build(_dialect(connection))
            compiled = statement.compile(dialect=connection.dialect)
            order = [self._parameters.index(bound) for bound in compiled.positiontup or ()]
            straight = order == list(range(len(self._parameters)))
            known = self._compiled[name] = (str(compiled), None if straight else itemgetter(*order))
        return known


def _bound(names: Sequence[str]) -> dict[str, Any]:
    return {name: bindparam(name) for name in names}


_COSTS = table_of(UsageCost)
_OFFSETS = table_of(JournalOffset)
_LEASES = table_of(Lease)


def _insert_costs(module: Any) -> Any:
    values = _bound(COLUMNS)
    if module is not sqlite:  # JSON columns come encoded
        values |= {name: cast(bindparam(name, type_=Text), JSON) for name in JSON_COLUMNS}
    return module.insert(_COSTS).values(values).on_conflict_do_nothing(index_elements=["call_id"])


def insert_costs_returning(connection: Connection, rows: list[Row]) -> set[bytes]:
    """PostgreSQL: the call ids of the rows that were not there before."""
    statement = _insert_costs(_dialect(connection)).returning(_COSTS.c.call_id)
    result = connection.execute(statement, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    return set(result.scalars())


def upsert(table: Table, columns: tuple[str, ...]) -> Callable[[Any], Any]:
    """Of rollups: what is there already grows."""

    def build(module: Any) -> Any:
        insert = module.insert(table).values(_bound(columns))
        sums = {name: table.c[name] + insert.excluded[name] for name in ROLLUP_SUMS}
        return insert.on_conflict_do_update(index_elements=["shard"], set_=sums)

    return build


INSERT_COSTS = Statement(_insert_costs, COLUMNS)
UPSERT_ROLLUPS = Statement(upsert(table_of(CostAnalytics), ROLLUP_COLUMNS), ROLLUP_COLUMNS)
UPSERT_DAYS = Statement(upsert(table_of(CostDay), DAY_COLUMNS), DAY_COLUMNS)
LAST_FOLDED = Statement(lambda _: select(func.max(table_of(FoldedDay).c.day)), ())

ADVANCE_OFFSET = Statement(
    lambda _: (
        update(_OFFSETS)
        .values(
            segment=bindparam("to_segment"),
            offset=bindparam("to_offset"),
            finished=bindparam("finish"),
            truncated=or_(_OFFSETS.c.truncated, bindparam("cut", type_=Boolean)),
        )
        .where(
            _OFFSETS.c.journal_id == bindparam("journal"),
            _OFFSETS.c.segment == bindparam("from_segment"),
            _OFFSETS.c.offset == bindparam("from_offset"),
            _OFFSETS.c.finished.is_(False),
        )
    ),
    ("to_segment", "to_offset", "finish", "cut", "journal", "from_segment", "from_offset"),
)

FLAG_COSTS = Statement(
    lambda _: (
        update(_COSTS)
        .values(flags=bindparam("to_flags"))
        .where(_COSTS.c.call_id == bindparam("id"))
    ),
    ("to_flags", "id"),
)


@cache
def leases_statement(windows: int) -> Statement:
    """Lock an epoch's leases in that many windows, in the order of their ids."""
    names = tuple(f"window_{number}" for number in range(windows))
    return Statement(
        lambda _: (
            select(_LEASES.c.window_id, _LEASES.c.granted, _LEASES.c.spent)
            .where(
                _LEASES.c.epoch_id == bindparam("epoch"),
                _LEASES.c.window_id.in_([bindparam(name) for name in names]),
            )
            .order_by(_LEASES.c.window_id)
            .with_for_update()
        ),
        ("epoch", *names),
    )
