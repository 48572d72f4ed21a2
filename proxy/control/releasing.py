"""Money of a control that is gone for good, given up: as commands and the admin API do it."""

from sqlalchemy import Connection

from db.audit import Actor, record
from db.errors import CatalogError, NotKnown
from db.ledger import close_epoch
from db.report_leases import unfinished_leases


def release(connection: Connection, actor: Actor, epoch_id: int, now_ms: int) -> None:
    """What the epoch did not spend is free again, with an entry in the audit log. Raises
    NotKnown, and CatalogError while its control runs."""
    leases = [each for each in unfinished_leases(connection) if each.epoch_id == epoch_id]
    if not leases:
        raise NotKnown(f"epoch {epoch_id} has no money: see `tollkeeper budgets leases`")
    if any(each.state != "lost" for each in leases):
        raise CatalogError(f"epoch {epoch_id} is open: its control is running, stop it instead")
    close_epoch(connection, epoch_id, unfinished_too=True)
    before = {"leases": [each._asdict() for each in leases]}
    record(connection, actor, now_ms, "lease.release", f"epoch/{epoch_id}", before, None)
