"""What a migration of a large table on PostgreSQL needs done before, in transactions of its own,
so that nobody waits for it: a constraint that is first added, which takes a moment, and then
validated, which takes as long as reading the table, beside whoever reads and writes it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

COSTS = "ai_usage_costs"
CHECK = "ck_ai_usage_costs_before"
SLACK = timedelta(days=2)  # for clocks of other hosts, and for the migration to come
MONTHS = 3
# A table of its own, not partitioned yet.
_IS_PLAIN = "SELECT 1 FROM pg_class WHERE relname = :table AND relkind = 'r' AND NOT relispartition"


async def prepare(engine: AsyncEngine) -> None:
    """Before the migration to partitions; does nothing where there is nothing to do."""
    async with engine.begin() as connection:
        plain = (await connection.execute(text(_IS_PLAIN), {"table": COSTS})).first()
        if plain is None:
            return
        await connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        if await connection.run_sync(bound_of_check) is None:
            await connection.run_sync(add_check)
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {COSTS} VALIDATE CONSTRAINT {CHECK}"))


def bound_of_check(connection: Connection) -> str | None:
    """Hexadecimal: all call ids are smaller."""
    query = text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")
    found = connection.execute(query, {"name": CHECK}).scalar()
    match = re.search(r"\\x(\w+)'", found or "")
    return None if match is None else match[1]


def add_check(connection: Connection) -> str:
    """Says of rows to come that their id is of before the next month, and returns that bound."""
    largest = connection.execute(
        text(f"SELECT call_id FROM {COSTS} ORDER BY call_id DESC LIMIT 1")  # noqa: S608
    ).scalar()
    latest = datetime.now(UTC) + SLACK
    if largest is not None:
        known_ms = int.from_bytes(largest[:6], "big")
        latest = max(latest, datetime.fromtimestamp(known_ms / 1000, UTC) + SLACK)
    bound = _id_hex(_month_after(latest))
    check = rf"CHECK (call_id < '\x{bound}')"
    connection.exec_driver_sql(f"ALTER TABLE {COSTS} ADD CONSTRAINT {CHECK} {check} NOT VALID")
    return bound


def months_from(bound: str) -> Iterator[tuple[str, str, str]]:
    """(first id, that of the next, name) of the months that begin there."""
    first = datetime.fromtimestamp(int(bound[:12], 16) / 1000, UTC)
    for _ in range(MONTHS):
        following = _month_after(first)
        yield _id_hex(first), _id_hex(following), f"{first:%Y_%m}"
        first = following


def _month_after(at: datetime) -> datetime:
    return datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)


def _id_hex(at: datetime) -> str:
    return int(at.timestamp() * 1000).to_bytes(6, "big").hex() + "00" * 10
