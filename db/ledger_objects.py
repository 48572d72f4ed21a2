"""What providers keep: noted as journals tell of it, in whatever order; no money moves here.

An object whose call and final usage are both known is `ready` for `ledger_open`.
"""

import logging
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, case, exists, select, update
from sqlalchemy.exc import DBAPIError

from db.journal_records import Note
from db.ledger_insert import Ended
from db.ledger_types import FoundObject
from db.models import ProviderObject
from db.statements import insert_new, table_of
from db.transactions import is_retryable

log = logging.getLogger(__name__)

OBJECTS = table_of(ProviderObject)
IDENTITY = ("provider", "account", "kind", "object_id")
ID_CHARS_MAX = 128

Identity = tuple[str, str, str, str]


def apply_notes(
    connection: Connection, notes: Iterable[Note], fresh: Iterable[Ended], *, careful: bool
) -> int:
    """Book what notes and rows that were inserted say. Returns how many calls became ready.
    `careful`: a note that the database refuses must not stop the others; without it a call stays
    charged at its hold."""
    ready = 0
    for note in notes:
        ready += _apply_apart(connection, note) if careful else _apply(connection, note)
    for hold, settle, _ in fresh:
        opens = settle.opens
        if opens is not None:
            identity = (hold.provider, opens.account, opens.kind, opens.object_id)
            row = _row(connection, identity, hold.at_ms)
            if row.call_id is None:
                values = {"call_id": hold.call_id, "estimate": opens.estimate}
                ready += _set(connection, row, values)
    return ready


def _apply_apart(connection: Connection, note: Note) -> int:
    try:
        with connection.begin_nested():
            return _apply(connection, note)
    except (DBAPIError, ValueError, TypeError, OverflowError) as exc:
        if is_retryable(exc):
            raise
        log.error("%s %s cannot be noted: %s", note.kind, note.object_id, exc)
        return 0


def _apply(connection: Connection, note: Note) -> int:
    row = _row(connection, (note.provider, note.account, note.kind, note.object_id), note.at_ms)
    if note.requests is not None:
        _set(connection, row, {"requests": note.requests})
    ready = _finish(connection, row, note.result) if note.result is not None else 0
    for file_id in note.outputs:
        file = _row(connection, (note.provider, note.account, "file", file_id), note.at_ms)
        if file.batch_id is None:
            _set(connection, file, {"batch_id": row.id})
            if file.result is not None:
                ready += _finish(connection, _row_of(connection, row.id), file.result)
    return ready


def _finish(connection: Connection, row: Any, result: dict[str, Any]) -> int:
    """Final usage of an object, or of the batch whose results are in it. What was read line by
    line takes the place of a total, until the call is settled."""
    known = row.result
    if row.adjustment_id is not None or (known is not None and not known.get("total")):
        return 0
    if known is not None and result.get("total"):
        return 0
    ready = _set(connection, row, {"result": result})
    if row.batch_id is not None:
        ready += _finish(connection, _row_of(connection, row.batch_id), result)
    return ready


def _set(connection: Connection, row: Any, values: dict[str, Any]) -> int:
    after = row._asdict() | values
    ready = (
        after["call_id"] is not None
        and after["result"] is not None
        and after["adjustment_id"] is None
    )
    statement = update(OBJECTS).where(OBJECTS.c.id == row.id)
    connection.execute(statement.values(**values, ready=ready))
    return int(ready and not row.ready)


def _row(connection: Connection, identity: Identity, at_ms: int) -> Any:
    """The row of an object, made where missing, locked."""
    keys = dict(zip(IDENTITY, (part.replace("\0", "") for part in identity), strict=True))
    keys["object_id"] = keys["object_id"][:ID_CHARS_MAX]
    query = select(OBJECTS).filter_by(**keys).with_for_update()
    found = connection.execute(query).one_or_none()
    if found is None:
        connection.execute(
            insert_new(connection, OBJECTS, IDENTITY),
            {**keys, "noted_at_ms": at_ms, "ready": False},
        )
        found = connection.execute(query).one()
    return found


def _row_of(connection: Connection, id_: int) -> Any:
    return connection.execute(select(OBJECTS).where(OBJECTS.c.id == id_).with_for_update()).one()


def find_object(connection: Connection, identity: Identity) -> FoundObject | None:
    query = select(OBJECTS.c.requests).filter_by(**dict(zip(IDENTITY, identity, strict=True)))
    found = connection.execute(query).one_or_none()
    return None if found is None else FoundObject(found.requests)


def forget_objects(connection: Connection, before_ms: int) -> int:
    """Delete old objects that no call refers to: files of long ago, responses that were free."""
    statement = OBJECTS.delete().where(*_forgotten(before_ms))
    return connection.execute(statement).rowcount


def _forgotten(before_ms: int) -> tuple[Any, ...]:
    """By their time: nearly all objects are without a call, which an engine without statistics
    does not know, so that condition is put in a way it takes no index for."""
    file = OBJECTS.alias()
    without_call = case((OBJECTS.c.call_id.is_(None), 1), else_=0)
    return (
        OBJECTS.c.noted_at_ms < before_ms,
        without_call == 1,
        ~exists(select(file.c.id).where(file.c.batch_id == OBJECTS.c.id)),
    )
