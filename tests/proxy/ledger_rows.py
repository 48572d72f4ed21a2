"""Rows in the ledger of a command's directory, without a proxy having run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, select

from db.models import ApiKey, Budget, Epoch, Organization, Team, Window
from tests.factories import KeyIds, a_lease, stored


@contextmanager
def writing(directory: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{directory}/tollkeeper.db")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def key_ids(connection: Connection, name: str) -> KeyIds:
    query = (
        select(ApiKey.id, Organization.id, Team.id)
        .join(Team, ApiKey.team_id == Team.id)
        .join(Organization, Team.organization_id == Organization.id)
        .where(ApiKey.name == name)
    )
    return KeyIds(*connection.execute(query).one())


def lease(
    connection: Connection, identity: str, *, granted: int, spent: int, state: str = "open"
) -> int:
    """Grant money of the `total` window of the budget whose identity starts so; its epoch's id."""
    budget = select(Budget.id).where(Budget.identity.startswith(identity))
    budget_id = connection.execute(budget).scalar_one()
    values = {"budget_id": budget_id, "starts_at": 0, "committed": granted}
    window_id = stored(connection, Window, **values)
    times = {"opened_at_ms": 1, "seen_at_ms": 1}
    epoch_id = stored(connection, Epoch, host_id="host-1", boot_id="b", state=state, **times)
    a_lease(connection, window_id, epoch_id, granted, spent)
    return epoch_id
