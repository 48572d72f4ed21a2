"""The live schema: which revision it is at, bringing it up or down, and whether it is ours.

Alembic is imported only when there is something to migrate: a start on a current schema reads
one row and compares the tables.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import schema_script
from db.engine import ping, reader
from db.errors import DatabaseUnusable, SchemaMismatch
from db.schema_diff import differences

# Oldest first; a test compares them with the migration scripts.
REVISIONS = (
    "0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011",
)  # fmt: skip
HEAD = REVISIONS[-1]
MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x746F6C6C  # PostgreSQL advisory lock: one migration at a time


async def current(engine: AsyncEngine) -> str | None:
    """The revision the database is at; None if it was never migrated."""
    await ping(engine)
    async with reader(engine).connect() as connection:
        return await connection.run_sync(_current)


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Migrate up to a revision. Raises SchemaMismatch if a newer version wrote the database."""
    await _migrate(engine, revision, "upgrade")


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Migrate down to a revision; "base" drops everything."""
    await _migrate(engine, revision, "downgrade")


async def check(engine: AsyncEngine) -> None:
    """Raises SchemaMismatch unless the live schema is the one of the models."""
    await ping(engine)
    async with reader(engine).connect() as connection:
        await connection.run_sync(_check)


async def ensure(engine: AsyncEngine) -> None:
    """What a start needs: migrate when behind, then check. Raises SchemaMismatch."""
    revision = await current(engine)
    if revision is None and await _create(engine):
        revision = HEAD
    if revision is None or revision in REVISIONS[:-1]:
        await upgrade(engine)
    await check(engine)


async def _create(engine: AsyncEngine) -> bool:
    """Make the newest schema at once. False: that is for the migrations to do."""
    if engine.dialect.name != "sqlite":
        return False
    async with _migrating(engine) as connection:
        return await connection.run_sync(schema_script.create)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check(connection: Connection) -> None:
    revision = _current(connection)
    if revision is None:
        raise SchemaMismatch(
            ["the database has no Tollkeeper tables"], "Run `tollkeeper db upgrade`"
        )
    _refuse_unknown(revision)
    if revision != HEAD:
        raise SchemaMismatch(
            [f"it is at revision {revision}, this version needs {HEAD}"],
            "Run `tollkeeper db upgrade`",
        )
    problems = differences(connection)
    if problems:
        raise SchemaMismatch(
            problems,
            f"Its revision is {HEAD}, so something else changed it: undo that, restore a backup, "
            "or give Tollkeeper a database of its own and run `tollkeeper db upgrade` there",
        )


def _refuse_unknown(revision: str | None) -> None:
    if revision is not None and revision not in REVISIONS:
        raise SchemaMismatch(
            [f"it is at revision {revision}, which this version does not know (newest: {HEAD})"],
            "A newer Tollkeeper wrote it: run that version, or with it "
            f"`tollkeeper db downgrade {HEAD}`",
        )


async def _migrate(engine: AsyncEngine, revision: str, direction: str) -> None:
    from alembic import command  # noqa: PLC0415 - 0.1 s that a normal start does not pay
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    from db.migrations import online  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")

    def run(connection: Connection) -> None:
        _refuse_unknown(_current(connection))
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)

    await ping(engine)
    if direction == "upgrade" and engine.dialect.name == "postgresql":
        await online.prepare(engine)
    async with _migrating(engine) as connection:
        try:
            await connection.run_sync(run)
        except (CommandError, SQLAlchemyError) as exc:
            reason = getattr(exc, "orig", None) or exc
            raise DatabaseUnusable(f"cannot {direction} to {revision}: {reason}") from exc


@asynccontextmanager
async def _migrating(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction, alone: all of a migration or nothing."""
    if engine.dialect.name != "sqlite":
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            yield connection
        return
    async with engine.connect() as connection:
        # SQLite changes tables by replacing them, which may not cascade; the switch does nothing
        # inside a transaction. https://sqlite.org/lang_altertable.html section 7
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute("PRAGMA foreign_keys=OFF")
        try:
            async with connection.begin():
                yield connection
                await _check_references(connection)
        finally:
            await driver.execute("PRAGMA foreign_keys=ON")


async def _check_references(connection: AsyncConnection) -> None:
    broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).first()
    if broken is not None:
        raise DatabaseUnusable(f"the migration would leave a dangling reference: {broken}")
