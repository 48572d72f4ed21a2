"""Lives in the ledger: epochs of controls, and the journals of their workers. Moves no money."""

from sqlalchemy import Connection, select, update

from db.ledger_types import Batch, Drained, EpochClosed, JournalState
from db.models import Epoch, JournalOffset
from db.statements import ADVANCE_OFFSET, database_now_ms, insert_new, table_of

ADJUSTMENTS = 0  # the epoch of no host: corrections are booked under it


def register_epoch(connection: Connection, host_id: str, boot_id: str) -> int:
    table = table_of(Epoch)
    now = connection.execute(select(database_now_ms(connection))).scalar_one()
    times = {"state": "open", "opened_at_ms": now, "seen_at_ms": now}
    nobody = {"id": ADJUSTMENTS, "host_id": "", "boot_id": "", **times}
    connection.execute(insert_new(connection, table, ("id",)), nobody)
    row = {"host_id": host_id, "boot_id": boot_id, **times}
    inserted = connection.execute(table.insert().returning(table.c.id), row)
    return int(inserted.scalar_one())


def require_open(connection: Connection, epoch_id: int) -> None:
    """Share-locks the epoch, so that it is not closed meanwhile. Raises EpochClosed."""
    query = select(Epoch.state).where(Epoch.id == epoch_id).with_for_update(read=True)
    state = connection.execute(query).scalar_one_or_none()
    if state is None or state == "closed":
        raise EpochClosed(f"epoch {epoch_id} is {state or 'not registered'}")


def register_journal(connection: Connection, journal_id: bytes, epoch_id: int) -> None:
    require_open(connection, epoch_id)
    row = {"journal_id": journal_id, "epoch_id": epoch_id, "segment": 0, "offset": 0}
    statement = insert_new(connection, table_of(JournalOffset), ("journal_id",))
    connection.execute(statement, {**row, "finished": False, "truncated": False})


def touch_epoch(connection: Connection, epoch_id: int) -> int:
    now = connection.execute(select(database_now_ms(connection))).scalar_one()
    seen = update(Epoch).where(Epoch.id == epoch_id, Epoch.state != "closed")
    if connection.execute(seen.values(seen_at_ms=now, state="open")).rowcount == 0:
        raise EpochClosed(f"epoch {epoch_id} is closed")
    return int(now)


def mark_lost(connection: Connection, unseen_ms: int) -> list[int]:
    limit = database_now_ms(connection) - unseen_ms
    unseen = (Epoch.state == "open", Epoch.id != ADJUSTMENTS, Epoch.seen_at_ms < limit)
    lost = list(connection.execute(select(Epoch.id).where(*unseen)).scalars())
    connection.execute(update(Epoch).where(*unseen).values(state="lost"))
    return lost


def unclosed_epochs(connection: Connection, host_id: str) -> list[tuple[int, str]]:
    query = select(Epoch.id, Epoch.boot_id).where(Epoch.host_id == host_id, Epoch.state != "closed")
    return [(row[0], row[1]) for row in connection.execute(query.order_by(Epoch.id))]


def host_of(connection: Connection, epoch_id: int) -> str:
    query = select(Epoch.host_id).where(Epoch.id == epoch_id)
    return connection.execute(query).scalar_one_or_none() or ""


def journal_state(connection: Connection, journal_id: bytes) -> JournalState | None:
    query = select(
        JournalOffset.epoch_id,
        JournalOffset.segment,
        JournalOffset.offset,
        JournalOffset.finished,
        JournalOffset.truncated,
    )
    query = query.where(JournalOffset.journal_id == journal_id).with_for_update()
    row = connection.execute(query).first()
    return None if row is None else JournalState(row[0], (row[1], row[2]), row[3], row[4])


def advance_offset(connection: Connection, batch: Batch) -> Drained | None:
    """Compare and set. None: done; else where the journal really is."""
    values = (*batch.end, batch.finish, batch.truncated, batch.journal_id, *batch.start)
    if ADVANCE_OFFSET.one(connection, values).rowcount == 1:
        return None
    state = journal_state(connection, batch.journal_id)
    if state is None:
        raise EpochClosed(f"journal {batch.journal_id.hex()} is not registered")
    return Drained(moved=state.position, finished=state.finished)
