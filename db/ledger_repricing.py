"""A run of repricing in the ledger: begun once, each part of it booked once, ended."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, update

from db.ledger_corrections import adjust
from db.ledger_types import Adjusted, AskedRepricing, Correction, Read, Run
from db.models import Repricing
from db.references import References
from db.statements import table_of

_RUNS = table_of(Repricing)


def begin_repricing(
    connection: Connection, references: References, asked: AskedRepricing, now_ms: int
) -> Run:
    """A new run, or one asked for in the same words that has not ended: it goes on from there."""
    version_id = references.version_id(connection, asked.price_version, asked.described)
    unfinished = select(_RUNS).where(
        _RUNS.c.price_version_id == version_id,
        _RUNS.c.restated.is_(asked.restate),
        _RUNS.c.finished_at_ms.is_(None),
    )
    for row in connection.execute(unfinished.order_by(_RUNS.c.id).with_for_update()):
        if row.asked == asked.words:
            read = None if row.read_call_id is None else Read(row.read_at_ms, row.read_call_id)
            adjusted = Adjusted(row.calls_adjusted, row.adjusted_nano)
            return Run(row.id, row.since_ms, row.until_ms, row.started_at_ms, read, adjusted)
    # Its time is in the ids of its rows, and the last correction of a call has the largest id.
    last = connection.execute(select(func.max(_RUNS.c.started_at_ms))).scalar_one()
    started_at_ms = max(now_ms, (last or 0) + 1)
    values = {
        "price_version_id": version_id,
        "since_ms": asked.since_ms,
        "until_ms": asked.until_ms,
        "restated": asked.restate,
        "asked": asked.words,
        "started_at_ms": started_at_ms,
        "calls_adjusted": 0,
        "adjusted_nano": 0,
    }
    run_id = connection.execute(_RUNS.insert().returning(_RUNS.c.id), values).scalar_one()
    return Run(run_id, asked.since_ms, asked.until_ms, started_at_ms, None, Adjusted(0, 0))


def reprice(
    connection: Connection,
    references: References,
    run_id: int,
    corrections: Sequence[Correction],
    read: Read,
    host_id: str,
) -> Adjusted:
    """Corrections and how far the run has read, in one."""
    adjusted = adjust(connection, references, corrections, host_id, run_id)
    progress = {
        "read_at_ms": read.at_ms,
        "read_call_id": read.call_id,
        "calls_adjusted": _RUNS.c.calls_adjusted + adjusted.calls,
        "adjusted_nano": _RUNS.c.adjusted_nano + adjusted.nano,
    }
    connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(progress))
    return adjusted


def end_repricing(connection: Connection, run_id: int, now_ms: int) -> None:
    connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(finished_at_ms=now_ms))
