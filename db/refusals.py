"""Refused calls, counted by hour: they have no row of their own, and cost nothing.

Control adds what its workers told in transactions of its own; what a crash or an unclear commit
takes or doubles is a few seconds of counts, and no money. `FOLDED` stands for what was not told
apart, because too much of it came in one hour.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.models import RefusalCount
from db.statements import Statement, table_of

HOUR_MS = 3_600_000
FOLDED = "*"
ROWS_MAX = 1_000
_TABLE = table_of(RefusalCount)
_COLUMNS = tuple(_TABLE.c.keys())
_CHARS_MAX: dict[str, Any] = {name: getattr(_TABLE.c[name].type, "length", 0) for name in _COLUMNS}


class Group(NamedTuple):
    """What is alike of refused calls."""

    hour: int
    organization: str
    team: str
    key_name: str
    provider: str
    model: str
    code: str
    scope: str


class Counted(NamedTuple):
    calls: int
    last_at_ms: int


def _upsert(module: Any) -> Any:
    insert = module.insert(_TABLE).values({name: bindparam(name) for name in _COLUMNS})
    later = insert.excluded.last_at_ms
    latest = case((_TABLE.c.last_at_ms > later, _TABLE.c.last_at_ms), else_=later)
    grown = {"calls": _TABLE.c.calls + insert.excluded.calls, "last_at_ms": latest}
    return insert.on_conflict_do_update(index_elements=["shard"], set_=grown)


_UPSERT = Statement(_upsert, _COLUMNS)


def add_refusals(connection: Connection, host_id: str, counts: Mapping[Group, Counted]) -> None:
    """Add to the hours."""
    rows = [_row(host_id, group, counted) for group, counted in counts.items()]
    if rows:
        _UPSERT.many(connection, rows)


def _row(host_id: str, group: Group, counted: Counted) -> tuple[Any, ...]:
    names = [_fitting(name, getattr(group, name)) for name in Group._fields[1:]]
    identity = "\0".join((host_id, str(group.hour), *names))
    shard = sha256(identity.encode()).hexdigest()
    return (shard, group.hour, *names, *counted)


def _fitting(name: str, value: str) -> str:
    """As the column takes it: names come from clients."""
    return value.replace("\0", "\ufffd")[: _CHARS_MAX[name]]


def forget_refusals(connection: Connection, before_ms: int) -> int:
    """Delete what was before. Returns how many rows."""
    old = delete(_TABLE).where(_TABLE.c.hour < before_ms // HOUR_MS)
    return connection.execute(old).rowcount


# --- reading -------------------------------------------------------------------------------

DIMENSIONS = {
    "hour": _TABLE.c.hour,
    "organization": _TABLE.c.organization,
    "team": _TABLE.c.team,
    "key": _TABLE.c.key_name,
    "provider": _TABLE.c.provider,
    "model": _TABLE.c.model,
    "code": _TABLE.c.code,
    "scope": _TABLE.c.scope,
}


class RefusedSum(NamedTuple):
    group: tuple[Any, ...]  # in the order of the dimensions; hours are unix hours
    calls: int
    last_at_ms: int


async def refusal_sums(
    connection: AsyncConnection,
    by: Sequence[str],
    since_ms: int,
    until_ms: int,
    where: Mapping[str, str],
    limit: int = ROWS_MAX,
) -> list[RefusedSum]:
    """Of every host, by whole hours (UTC) that the time touches; the most frequent first. Raises
    ReportError for a dimension that there is not."""
    columns = [_dimension(name) for name in by]
    calls = func.sum(_TABLE.c.calls)
    query = (
        select(*columns, calls, func.max(_TABLE.c.last_at_ms))
        .where(
            _TABLE.c.hour >= since_ms // HOUR_MS,
            _TABLE.c.hour < -(-until_ms // HOUR_MS),
            *_conditions(where),
        )
        .order_by(calls.desc(), *columns)
        .limit(limit)
    )
    if columns:
        query = query.group_by(*columns)
    rows = await connection.execute(query)
    return [RefusedSum(tuple(row[:-2]), int(row[-2]), int(row[-1])) for row in rows if row[-2]]


def _dimension(name: str) -> Any:
    if name not in DIMENSIONS:
        known = ", ".join(DIMENSIONS)
        raise ReportError(f"refused calls have no {name!r}: they are counted by {known}")
    return DIMENSIONS[name]


def _conditions(where: Mapping[str, str]) -> list[Any]:
    """A team may be named as ORG/TEAM."""
    conditions = []
    for name, value in where.items():
        organization, slash, team = value.partition("/")
        if name == "team" and slash:
            conditions += [_TABLE.c.organization == organization, _TABLE.c.team == team]
        elif name == "hour":
            raise ReportError("hours are not asked for by name: give the time")
        else:
            conditions.append(_dimension(name) == value)
    return conditions
