"""Price versions: stored when they come into force, so that rows that come later find them."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from db.models import PriceVersion
from db.statements import insert_new, table_of

LOADED_MAX = 1_000  # of the newest: journals of older ones have been drained long ago


class StoredVersion(NamedTuple):
    """What makes a version, enough to build it again from its table file."""

    version: str
    table_id: str
    sha256: str
    source: str
    effective_from: str
    overlays: list[Any]  # `PriceBook.stored`


def store_version(connection: Connection, stored: StoredVersion, now_ms: int) -> None:
    """Idempotent: a version never changes."""
    values = {**stored._asdict(), "created_at_ms": now_ms}
    connection.execute(insert_new(connection, table_of(PriceVersion), ("version",)), values)


def load_versions(connection: Connection) -> list[StoredVersion]:
    """The newest, oldest first."""
    columns = [getattr(PriceVersion, name) for name in StoredVersion._fields]
    query = select(*columns).order_by(PriceVersion.id.desc()).limit(LOADED_MAX)
    return [StoredVersion(*row) for row in reversed(connection.execute(query).all())]
