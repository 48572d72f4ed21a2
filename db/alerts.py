"""Alerts and their deliveries: raised once, whoever inserts first; delivered until that is known.

Functions take a synchronous connection inside a transaction of the caller's. A delivery is claimed
before it is tried, for so long that whoever claimed it has ended or is dead: hosts do not try at
the same time, and what was cut short is tried again, under the same alert's id.
"""

import hashlib
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from db.models import Alert, AlertDelivery
from db.statements import insert_new, table_of

IDENTITY_CHARS_MAX = 256
SUMMARY_CHARS_MAX = 1024
SCOPE_CHARS_MAX = 512
ERROR_CHARS_MAX = 200
RECENT_MAX = 1_000
RAISED, ENDED = "raised", "ended"
PENDING, DELIVERED, GIVEN_UP = "pending", "delivered", "given_up"
REPORT = "scheduled_report"  # not an alert, but sent as one: once, and until it is delivered


class NewAlert(NamedTuple):
    kind: str
    identity: str  # `identity_of`: two alerts with the same one are one
    severity: str
    summary: str
    scope: str = ""
    facts: Mapping[str, Any] = {}
    budget_id: int | None = None
    window_starts_at: int | None = None


class Attempt(NamedTuple):
    """A delivery's try number."""

    alert_id: str
    event: str
    channel: str
    attempts: int  # before this one
    since_ms: int


class Message(NamedTuple):
    """What a channel is told."""

    id: str
    kind: str
    event: str
    severity: str
    scope: str
    summary: str
    facts: dict[str, Any]
    raised_at_ms: int
    ended_at_ms: int | None


class Delivery(NamedTuple):
    event: str
    channel: str
    state: str
    attempts: int
    done_at_ms: int | None
    error: str


class RecentAlert(NamedTuple):
    """An alert for people to look at."""

    message: Message
    budget_id: int | None
    window_starts_at: int | None
    host_id: str
    deliveries: tuple[Delivery, ...]


def identity_of(*parts: object) -> str:
    identity = "|".join(map(str, parts))
    if len(identity) <= IDENTITY_CHARS_MAX:
        return identity
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return f"{identity[: IDENTITY_CHARS_MAX - len(digest) - 1]}#{digest}"


# --- raising -------------------------------------------------------------------------------


def raise_alert(
    connection: Connection,
    new: NewAlert,
    channels: Iterable[str],
    *,
    host_id: str,
    now_ms: int,
    id_: str = "",
) -> str | None:
    """The alert's id, with a delivery to each channel; None: somebody has raised it already."""
    id_ = id_ or str(uuid.uuid4())
    values = {
        **new._asdict(),
        "id": id_,
        "summary": new.summary[:SUMMARY_CHARS_MAX],
        "scope": new.scope[:SCOPE_CHARS_MAX],
        "facts": dict(new.facts),
        "host_id": host_id,
        "raised_at_ms": now_ms,
    }
    inserted = insert_new(connection, table_of(Alert), ["identity"]).values(values)
    if connection.execute(inserted.returning(Alert.id)).first() is None:
        return None
    _add_deliveries(connection, id_, RAISED, channels, now_ms)
    return id_


def end_alert(connection: Connection, id_: str, channels: Iterable[str], now_ms: int) -> bool:
    """False: there is no such alert, or it has ended before."""
    ended = update(Alert).where(Alert.id == id_, Alert.ended_at_ms.is_(None))
    if not connection.execute(ended.values(ended_at_ms=now_ms)).rowcount:
        return False
    _add_deliveries(connection, id_, ENDED, channels, now_ms)
    return True


def _add_deliveries(
    connection: Connection, id_: str, event: str, channels: Iterable[str], now_ms: int
) -> None:
    rows = [
        {
            "alert_id": id_,
            "event": event,
            "channel": channel,
            "state": PENDING,
            "attempts": 0,
            "since_ms": now_ms,
            "next_at_ms": now_ms,
            "error": "",
        }
        for channel in sorted(set(channels))
    ]
    if rows:
        connection.execute(insert(AlertDelivery), rows)


def known(connection: Connection, identities: Collection[str]) -> set[str]:
    """Those that were raised."""
    query = select(Alert.identity).where(Alert.identity.in_(list(identities)))
    return set(connection.execute(query).scalars()) if identities else set()


def raised_facts(connection: Connection, kind: str, windows: Collection[int]) -> list[Any]:
    """(budget id, start of window, facts) of a kind's alerts of windows that begin then."""
    query = select(Alert.budget_id, Alert.window_starts_at, Alert.facts).where(
        Alert.kind == kind, Alert.window_starts_at.in_(sorted(windows))
    )
    return list(connection.execute(query)) if windows else []


# --- delivering ----------------------------------------------------------------------------


def due(
    connection: Connection, channels: Collection[str], now_ms: int, limit: int
) -> list[Attempt]:
    """Deliveries to these channels that are to be tried now, the oldest first."""
    query = (
        select(
            AlertDelivery.alert_id,
            AlertDelivery.event,
            AlertDelivery.channel,
            AlertDelivery.attempts,
            AlertDelivery.since_ms,
        )
        .where(
            AlertDelivery.state == PENDING,
            AlertDelivery.next_at_ms <= now_ms,
            AlertDelivery.channel.in_(sorted(channels)),
        )
        .order_by(AlertDelivery.next_at_ms, AlertDelivery.alert_id)
        .limit(limit)
    )
    return [Attempt(*row) for row in connection.execute(query)] if channels else []


def claim(connection: Connection, attempt: Attempt, until_ms: int) -> Message | None:
    """What is to be said; nobody else tries before `until_ms`. None: somebody else has it."""
    claimed = _own(attempt).where(AlertDelivery.attempts == attempt.attempts)
    values = {"attempts": attempt.attempts + 1, "next_at_ms": until_ms}
    if not connection.execute(claimed.values(values)).rowcount:
        return None
    row = connection.execute(_messages().where(Alert.id == attempt.alert_id)).one()
    return _message(row, attempt.event)


def settle(
    connection: Connection,
    attempt: Attempt,
    state: str,
    *,
    now_ms: int,
    next_at_ms: int = 0,
    error: str = "",
) -> None:
    """How an attempt that was claimed has ended; `next_at_ms`: of one that stays pending."""
    done = {} if state == PENDING else {"done_at_ms": now_ms}
    values = {"state": state, "error": error[:ERROR_CHARS_MAX], "next_at_ms": next_at_ms, **done}
    connection.execute(_own(attempt).values(values))


def _own(attempt: Attempt) -> Any:
    return update(AlertDelivery).where(
        AlertDelivery.alert_id == attempt.alert_id,
        AlertDelivery.event == attempt.event,
        AlertDelivery.channel == attempt.channel,
        AlertDelivery.state == PENDING,
    )


# --- looking -------------------------------------------------------------------------------


def recent(
    connection: Connection,
    *,
    limit: int = 100,
    kinds: Sequence[str] = (),
    since_ms: int | None = None,
) -> list[RecentAlert]:
    """The newest first; scheduled reports only if their kind is asked for."""
    wanted = Alert.kind.in_(list(kinds)) if kinds else Alert.kind != REPORT
    query = _messages(Alert.budget_id, Alert.window_starts_at, Alert.host_id).where(wanted)
    if since_ms is not None:
        query = query.where(Alert.raised_at_ms >= since_ms)
    query = query.order_by(Alert.raised_at_ms.desc(), Alert.id).limit(min(limit, RECENT_MAX))
    rows = connection.execute(query).all()
    deliveries: dict[str, list[Delivery]] = {row.id: [] for row in rows}
    columns = [getattr(AlertDelivery, name) for name in Delivery._fields]
    of_rows = select(AlertDelivery.alert_id, *columns).order_by(
        AlertDelivery.event.desc(), AlertDelivery.channel
    )
    for id_, *values in connection.execute(of_rows.where(AlertDelivery.alert_id.in_(deliveries))):
        deliveries[id_].append(Delivery(*values))
    return [
        RecentAlert(
            _message(row, ENDED if row.ended_at_ms else RAISED),
            row.budget_id,
            row.window_starts_at,
            row.host_id,
            tuple(deliveries[row.id]),
        )
        for row in rows
    ]


def forget(connection: Connection, before_ms: int) -> int:
    """Delete what was raised before, with its deliveries. Returns how many."""
    return connection.execute(delete(Alert).where(Alert.raised_at_ms < before_ms)).rowcount


def _messages(*more: Any) -> Any:
    names = ("id", "kind", "severity", "scope", "summary", "facts", "raised_at_ms", "ended_at_ms")
    return select(*(getattr(Alert, name) for name in names), *more)


def _message(row: Any, event: str) -> Message:
    return Message(
        row.id,
        row.kind,
        event,
        row.severity,
        row.scope,
        row.summary,
        row.facts,
        row.raised_at_ms,
        row.ended_at_ms,
    )
