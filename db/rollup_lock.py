"""The lock under which rollups are made of what others have written."""

from sqlalchemy import Connection, text

from db.models import CostAnalytics
from db.partitions import LOCK_TIMEOUT


def lock_rollups(connection: Connection) -> None:
    """Wait for everybody who has written hourly rollups, and let nobody write any until the end of
    the transaction. SQLite has one writer at a time. Raises what the database raises where that
    takes too long."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(LOCK_TIMEOUT))
        table = CostAnalytics.__tablename__
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
