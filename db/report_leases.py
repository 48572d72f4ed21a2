"""Who holds money that is granted and not spent: for operators, and for explaining budgets."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from db.models import Epoch, Lease, Window


class LeaseStatus(NamedTuple):
    """What one control's life still has of one window, in the budget's unit."""

    epoch_id: int
    host_id: str
    state: str  # open | lost
    seen_at_ms: int
    budget_id: int
    starts_at: int  # unix seconds
    granted: int
    spent: int

    @property
    def left(self) -> int:
        return self.granted - self.spent


def unfinished_leases(connection: Connection) -> list[LeaseStatus]:
    """Leases with something left, of epochs that are not closed, by epoch and window."""
    query = (
        select(
            Epoch.id,
            Epoch.host_id,
            Epoch.state,
            Epoch.seen_at_ms,
            Window.budget_id,
            Window.starts_at,
            Lease.granted,
            Lease.spent,
        )
        .join(Lease, Lease.epoch_id == Epoch.id)
        .join(Window, Window.id == Lease.window_id)
        .where(Epoch.state != "closed", Lease.granted > Lease.spent)
        .order_by(Epoch.id, Lease.window_id)
    )
    return [LeaseStatus(*row) for row in connection.execute(query)]
