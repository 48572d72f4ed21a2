"""Cost rows on PostgreSQL lie in partitions: one per month (UTC), made ahead; one with everything
before the table was partitioned; and one for ids of no month, which is there to be empty: a month
that nobody made ahead, a clock far off."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from db.models import UsageCost

TABLE = UsageCost.__tablename__
MONTHS_AHEAD = 3
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"  # nobody is to queue behind us for longer

_BOUNDS = re.compile(r"FROM \((?:'\\x(\w+)'|MINVALUE)\) TO \('\\x(\w+)'\)")


class Partition(NamedTuple):
    """Ids in [low, high); low None: from the first, high None: those of no other partition."""

    name: str
    low: bytes | None
    high: bytes | None


def list_partitions(connection: Connection) -> list[Partition]:
    """In the order of ids."""
    query = text(
        "SELECT part.relname, pg_get_expr(part.relpartbound, part.oid) FROM pg_inherits"
        " JOIN pg_class AS part ON part.oid = inhrelid"
        " WHERE inhparent = CAST(:table AS regclass)"
    )
    found = [
        _partition(name, bounds) for name, bounds in connection.execute(query, {"table": TABLE})
    ]
    return sorted(found, key=lambda each: (each.high is None, each.high or b""))


def _partition(name: str, bounds: str) -> Partition:
    match = _BOUNDS.search(bounds)
    if match is None:
        return Partition(name, None, None)
    low, high = match.groups()
    return Partition(name, None if low is None else bytes.fromhex(low), bytes.fromhex(high))


def make_ahead(connection: Connection, now_ms: int) -> list[str]:
    """Partitions for this month and the next ones. Returns those made; raises what the database
    raises where rows of such a month lie in the partition of no month: there they may stay."""
    last = max((each.high for each in list_partitions(connection) if each.high), default=b"")
    month = datetime.fromtimestamp(now_ms / 1000, UTC)
    made = []
    for ahead in range(MONTHS_AHEAD + 1):
        first, following = month_start(month, ahead), month_start(month, ahead + 1)
        if _id_hex(first) >= last.hex():
            made.append(_make(connection, first, following))
    return made


def month_start(at: datetime, months: int) -> datetime:
    """Of the month so many after that of `at`."""
    number = at.year * 12 + at.month - 1 + months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _make(connection: Connection, first: datetime, following: datetime) -> str:
    name = f"{TABLE}_{first:%Y_%m}"
    connection.execute(text(LOCK_TIMEOUT))
    connection.exec_driver_sql(
        f"CREATE TABLE {name} PARTITION OF {TABLE}"
        rf" FOR VALUES FROM ('\x{_id_hex(first)}') TO ('\x{_id_hex(following)}')"
    )
    return name


def _id_hex(at: datetime) -> str:
    """The smallest call id of that time."""
    return int(at.timestamp() * 1000).to_bytes(6, "big").hex() + "00" * 10


def lock(connection: Connection, partition: Partition) -> None:
    """Nothing is written to it from now on; only a host that was away for months might."""
    connection.execute(text(LOCK_TIMEOUT))
    connection.exec_driver_sql(f"LOCK TABLE {partition.name} IN SHARE ROW EXCLUSIVE MODE")


def detach(connection: Connection, partition: Partition) -> None:
    """And drop it, with all its rows. Whoever reads calls is waited for, two seconds at most."""
    connection.exec_driver_sql(f"ALTER TABLE {TABLE} DETACH PARTITION {partition.name}")
    connection.exec_driver_sql(f"DROP TABLE {partition.name}")
