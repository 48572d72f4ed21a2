"""What the migrations make of a new SQLite file, as one script: a start runs it in a few
milliseconds, the migrations one after the other take half a second and Alembic.

After a new migration `python -m db.schema_script` writes it again; a test says so.
"""

import asyncio
import sqlite3
import tempfile
from pathlib import Path

from sqlalchemy import Connection

SCRIPT = Path(__file__).parent / "migrations" / "head.sql"
END = ";\n"


def create(connection: Connection) -> bool:
    """Make the newest schema, inside the caller's transaction. False: the database is not empty."""
    if connection.exec_driver_sql("SELECT 1 FROM sqlite_schema").first() is not None:
        return False
    for statement in SCRIPT.read_text().split(END)[:-1]:
        connection.exec_driver_sql(statement)
    return True


def migrated() -> str:
    """The script, from a file that the migrations have made."""
    from db import schema  # noqa: PLC0415 - which imports this module
    from db.engine import open_engine  # noqa: PLC0415

    async def migrate(path: str) -> None:
        engine = open_engine(f"sqlite+aiosqlite:///{path}")
        await schema.upgrade(engine)
        await engine.dispose()

    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/ledger.db"
        asyncio.run(migrate(path))
        connection = sqlite3.connect(path)
        try:
            return script_of(connection)
        finally:
            connection.close()


def script_of(connection: sqlite3.Connection) -> str:
    """What `iterdump` says but for its transaction: tables with their rows, then indexes."""
    lines = "\n".join(connection.iterdump())
    body = lines.removeprefix("BEGIN TRANSACTION;\n").removesuffix("COMMIT;")
    return "\n".join(line.rstrip() for line in body.splitlines()) + "\n"


if __name__ == "__main__":
    SCRIPT.write_text(migrated())
