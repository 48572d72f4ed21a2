"""The audit log: every change with who made it, what it was before and what it is now."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from db.models import AuditEntry

WHO_CHARS_MAX = 128
TARGET_CHARS_MAX = 512

State = Mapping[str, Any]


class Actor(NamedTuple):
    """Who changes something, and from where: an address, or the host of a command."""

    who: str  # admin | cli:USER | config
    origin: str


class AuditRow(NamedTuple):
    id: int
    at_ms: int
    who: str
    origin: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def record(
    connection: Connection,
    by: Actor,
    now_ms: int,
    action: str,
    target: str,
    before: State | None,
    after: State | None,
) -> None:
    """In the transaction of the change. States hold no secret. Nothing changed: no entry."""
    if before == after:
        return
    connection.execute(
        insert(AuditEntry).values(
            at_ms=now_ms,
            who=by.who[:WHO_CHARS_MAX],
            origin=by.origin[:WHO_CHARS_MAX],
            action=action,
            target=target[:TARGET_CHARS_MAX],
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
        )
    )


def audit_rows(
    connection: Connection,
    *,
    limit: int,
    below: int | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    who: str = "",
    action: str = "",
    target: str = "",
) -> list[AuditRow]:
    """The newest first; `below`: only entries older than the one of this id."""
    query = select(AuditEntry.__table__).order_by(AuditEntry.id.desc()).limit(limit)
    if below is not None:
        query = query.where(AuditEntry.id < below)
    if since_ms is not None:
        query = query.where(AuditEntry.at_ms >= since_ms)
    if until_ms is not None:
        query = query.where(AuditEntry.at_ms < until_ms)
    for column, value in (("who", who), ("action", action), ("target", target)):
        if value:
            query = query.where(getattr(AuditEntry, column) == value)
    return [AuditRow(*row) for row in connection.execute(query)]
