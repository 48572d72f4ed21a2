"""Opening the database: SQLite in a file (default) or PostgreSQL."""

import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from db.errors import DatabaseUnusable, reason
from db.threads import lower_priority

BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 10
CACHE_KIB = 1024  # of a writer: it goes to the ends of tables; the system has the files in memory
WAL_BYTES_MAX = 64 * 2**20
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def open_engine(url: str, *, read_only: bool = False, nice: int = 0) -> AsyncEngine:
    """An engine whose transactions are durable once committed. `nice`: the priority of SQLite's
    threads, as of setpriority(2).

    On SQLite each transaction takes the write lock when it begins, so it never fails half-way
    because another one wrote first; for reading use `reader(engine)`. A new file is made with
    mode 0600. Raises DatabaseUnusable.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, read_only, nice)
    return _open_postgresql(parsed, read_only)


def open_sqlite_writer(url: str) -> Engine | None:
    """SQLite without the asynchronous driver, for whoever has a thread to run it in: the same
    durability, a fraction of the CPU time. None: not SQLite. Raises DatabaseUnusable."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    engine = create_engine(
        _checked_sqlite(parsed, read_only=False).set(drivername="sqlite"),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    _prepare_sqlite(engine, read_only=False)
    return engine


def reader(engine: AsyncEngine) -> AsyncEngine:
    """The same engine for reading: one consistent snapshot per transaction, no writer blocked."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(sqlite_begin="BEGIN")
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def file_mark(url: str) -> tuple[int, int] | None:
    """Of SQLite's file: another one once there is another file in its place. None: there is none,
    or it is no SQLite."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    try:
        found = os.stat(parsed.database)
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def ping(engine: AsyncEngine) -> None:
    """Connect once. Raises DatabaseUnusable with one line that says why it did not work."""
    try:
        async with reader(engine).connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        raise DatabaseUnusable(f"database {_shown(engine.url)}: {reason(exc)}") from exc


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise DatabaseUnusable(
            "database url cannot be parsed; examples: sqlite+aiosqlite:///tollkeeper.db, "
            "postgresql+asyncpg://user:password@host/name"
        ) from exc
    wanted = DRIVERS.get(parsed.get_backend_name())
    if wanted is None:
        raise DatabaseUnusable(
            f"database {_shown(parsed)}: {parsed.drivername} is not supported; "
            f"use {' or '.join(DRIVERS.values())}"
        )
    if parsed.drivername != wanted:
        raise DatabaseUnusable(
            f"database {_shown(parsed)}: write {wanted}:// instead of {parsed.drivername}://"
        )
    return parsed


def _shown(url: URL) -> str:
    if url.query.get("uri") and url.database is not None:  # as `_checked_sqlite` made it
        return unquote(url.database.removeprefix("file://"))
    return url.render_as_string(hide_password=True)


# --- SQLite --------------------------------------------------------------------------------


def _open_sqlite(url: URL, read_only: bool, nice: int) -> AsyncEngine:
    engine = create_async_engine(
        _checked_sqlite(url, read_only),
        pool_size=4,
        max_overflow=4,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )
    _prepare_sqlite(engine.sync_engine, read_only, nice)
    return engine


def _checked_sqlite(url: URL, read_only: bool) -> URL:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise DatabaseUnusable(f"database {_shown(url)}: name a file; cost rows must survive")
    path = Path(url.database).absolute()
    if not read_only:
        _create_sqlite_file(path)
    _check_sqlite_file(path, os.R_OK if read_only else os.R_OK | os.W_OK)
    # Never "rwc": a connection made while the file is away would put an empty one in its place,
    # and the write-ahead log of that one beside the file that comes back.
    mode = "ro" if read_only else "rw"
    return url.set(database=path.as_uri(), query={"mode": mode, "uri": "true"})


def _prepare_sqlite(engine: Engine, read_only: bool, nice: int = 0) -> None:
    pragmas = _sqlite_pragmas(read_only)
    begin_default = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    def on_connect(connection: Any, _record: object) -> None:
        # The driver must not begin transactions of its own: on_begin does.
        connection.isolation_level = None
        cursor = connection.cursor()
        if nice:  # a function is called in the thread that the driver runs this connection in
            connection.create_function("lower_priority", 0, lambda: lower_priority(nice))
            cursor.execute("SELECT lower_priority()")
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    def on_begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("sqlite_begin", begin_default))

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _sqlite_pragmas(read_only: bool) -> tuple[str, ...]:
    if read_only:
        return ("PRAGMA query_only=ON",)
    return (
        "PRAGMA journal_mode=WAL",
        # One fsync per commit: a journal segment is deleted once its rows are committed.
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
        f"PRAGMA cache_size=-{CACHE_KIB}",
        f"PRAGMA journal_size_limit={WAL_BYTES_MAX}",
    )


def _create_sqlite_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as exc:
        raise DatabaseUnusable(f"database {path} cannot be created: {exc.strerror}") from exc


def _check_sqlite_file(path: Path, access: int) -> None:
    """Say now, in words, what SQLite would say later with `unable to open database file`."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DatabaseUnusable(f"database {path} {what}")
    if not os.access(path, access):
        verb = "written" if access & os.W_OK else "read"
        raise DatabaseUnusable(f"database {path} cannot be {verb}: permission denied or read-only")
    if access & os.W_OK and not os.access(path.parent, os.W_OK | os.X_OK):
        raise DatabaseUnusable(
            f"database {path}: directory {path.parent} cannot be written, "
            "and SQLite keeps its write-ahead log there"
        )
    _check_sqlite_header(path)


def _check_sqlite_header(path: Path) -> None:
    """SQLite reads it, never we: a process that closes any descriptor of a file loses all its locks
    on it (POSIX), those of its open connections, too. Then another process that closes the
    database takes itself for the last, and deletes the write-ahead log under the writer."""
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)
    except sqlite3.Error:
        return  # it may be created, or come back, later
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise DatabaseUnusable(f"database {path} is not a SQLite database") from None
    finally:
        connection.close()


# --- PostgreSQL ----------------------------------------------------------------------------


def _open_postgresql(url: URL, read_only: bool) -> AsyncEngine:
    if find_spec("asyncpg") is None:
        raise DatabaseUnusable(
            f"database {_shown(url)}: PostgreSQL needs asyncpg; install tollkeeper[postgres]"
        )
    settings = {"application_name": "tollkeeper", "synchronous_commit": "on"}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return create_async_engine(
        url,
        pool_size=4,
        max_overflow=8,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_TIMEOUT_S, "server_settings": settings},
    )
