"""Opening databases, and what is said when that does not work."""

import asyncio
import os
import stat
import subprocess
import sys
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from db import engine as engine_module
from db.engine import open_engine, open_sqlite_writer, ping, reader
from db.errors import DatabaseUnusable


@pytest.fixture
async def opened():
    """Opens engines and disposes of them."""
    engines = []

    def open_(url, **options):
        engines.append(open_engine(url, **options))
        return engines[-1]

    yield open_
    for engine in engines:
        await engine.dispose()


def sqlite_url(path):
    return f"sqlite+aiosqlite:///{path}"


async def scalar(engine, statement):
    async with engine.connect() as connection:
        return (await connection.execute(text(statement))).scalar()


async def test_readers_may_have_a_lower_priority(opened, tmp_path):
    here = os.getpriority(os.PRIO_PROCESS, 0)
    opened_writer = opened(sqlite_url(tmp_path / "ledger.db"))
    await scalar(opened_writer, "SELECT 1")
    engine = opened(sqlite_url(tmp_path / "ledger.db"), read_only=True, nice=min(here + 2, 19))
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.create_function(
            "nice", 0, lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        )
        assert (await connection.execute(text("SELECT nice()"))).scalar() == min(here + 2, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here


# --- SQLite --------------------------------------------------------------------------------


async def test_sqlite_commits_are_durable_and_references_enforced(opened, tmp_path):
    engine = opened(sqlite_url(tmp_path / "a b.db"))
    settings = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    for name, value in settings.items():
        assert await scalar(engine, f"PRAGMA {name}") == value


async def test_sqlite_files_are_for_the_owner_alone(opened, tmp_path):
    engine = opened(sqlite_url(tmp_path / "ledger.db"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x)"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


async def test_sqlite_writers_queue_up_instead_of_failing(opened, tmp_path):
    """Both read before they write: with a deferred BEGIN the second could never commit."""
    engine = opened(sqlite_url(tmp_path / "ledger.db"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x INTEGER)"))
        await connection.execute(text("INSERT INTO t VALUES (0)"))

    async def add_one():
        async with engine.begin() as connection:
            x = (await connection.execute(text("SELECT x FROM t"))).scalar()
            await connection.execute(text(f"UPDATE t SET x = {x + 1}"))

    await asyncio.gather(*(add_one() for _ in range(8)))
    assert await scalar(engine, "SELECT x FROM t") == 8


async def test_reader_sees_one_snapshot_and_blocks_nobody(url, opened):
    engine = opened(url)
    async with reader(engine).connect() as reading:
        count = text("SELECT count(*) FROM ai_organizations")
        assert (await reading.execute(count)).scalar() == 0
        async with engine.begin() as writing:
            await writing.execute(
                text(
                    "INSERT INTO ai_organizations (name, source, created_at_ms)"
                    " VALUES ('acme', 'cli', 1)"
                )
            )
        assert (await reading.execute(count)).scalar() == 0
    assert await scalar(reader(engine), "SELECT count(*) FROM ai_organizations") == 1


async def test_read_only_engine_cannot_write(url, opened):
    engine = opened(url, read_only=True)
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM ai_revisions"))
    assert await scalar(engine, "SELECT count(*) FROM ai_revisions") == 1


async def test_a_file_that_is_away_is_not_replaced(opened, tmp_path):
    path = tmp_path / "ledger.db"
    engine, writer = opened(sqlite_url(path)), open_sqlite_writer(sqlite_url(path))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x)"))
    await engine.dispose()
    path.rename(tmp_path / "away.db")
    with pytest.raises(OperationalError, match="unable to open"):
        await scalar(engine, "SELECT count(*) FROM t")
    with pytest.raises(OperationalError, match="unable to open"):
        writer.connect()
    assert [each.name for each in tmp_path.iterdir()] == ["away.db"]
    (tmp_path / "away.db").rename(path)
    assert await scalar(engine, "SELECT count(*) FROM t") == 0


def test_read_only_creates_no_file(tmp_path):
    with pytest.raises(DatabaseUnusable, match=r"missing\.db does not exist"):
        open_engine(sqlite_url(tmp_path / "missing.db"), read_only=True)
    assert not list(tmp_path.iterdir())


def test_sqlite_in_a_missing_directory(tmp_path):
    with pytest.raises(DatabaseUnusable, match="cannot be created: No such file or directory"):
        open_engine(sqlite_url(tmp_path / "nowhere" / "ledger.db"))


def test_sqlite_on_a_read_only_disk(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DatabaseUnusable, match=r"ledger\.db cannot be created: Read-only file"):
        open_engine(sqlite_url(tmp_path / "ledger.db"))


@pytest.mark.parametrize(
    ("refused", "message"),
    [("ledger.db", "cannot be written: permission denied"), ("", "write-ahead log")],
)
def test_sqlite_without_write_access(tmp_path, monkeypatch, refused, message):
    path = tmp_path / "ledger.db"
    path.touch()
    target = path if refused else tmp_path
    monkeypatch.setattr(os, "access", lambda asked, mode: asked != target)
    with pytest.raises(DatabaseUnusable, match=message):
        open_engine(sqlite_url(path))


def test_a_directory_is_not_a_database(tmp_path):
    with pytest.raises(DatabaseUnusable, match="is not a file"):
        open_engine(sqlite_url(tmp_path))


def test_another_file_is_not_a_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("budgets: none of your business\n")
    with pytest.raises(DatabaseUnusable, match=r"notes\.txt is not a SQLite database"):
        open_engine(sqlite_url(path))
    assert path.read_text().startswith("budgets")


async def test_damaged_database_is_reported_by_ping(opened, tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(DatabaseUnusable, match=r"ledger\.db is not a SQLite database"):
        opened(sqlite_url(path))


ANOTHER_PROCESS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM rows").fetchone()[0])
connection.close()
"""


def count_elsewhere(path):
    """As another process sees it: one that may take itself for the last to close the database."""
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


async def test_an_engine_opened_later_takes_no_locks_away(opened, tmp_path):
    """Rows of a writer whose write-ahead log was deleted under it would be lost."""
    path = tmp_path / "ledger.db"
    writer = open_sqlite_writer(sqlite_url(path))
    with writer.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE rows (id INTEGER PRIMARY KEY)")
        connection.commit()
        for rows in range(3):
            await ping(opened(sqlite_url(path), read_only=True))
            assert count_elsewhere(path) == rows
            connection.exec_driver_sql("INSERT INTO rows DEFAULT VALUES")
            connection.commit()
            assert count_elsewhere(path) == rows + 1
    writer.dispose()


@pytest.mark.parametrize("database", ["", "/:memory:", "/file:x?mode=memory&uri=true"])
def test_databases_in_memory_are_refused(database):
    with pytest.raises(DatabaseUnusable, match="name a file"):
        open_engine(f"sqlite+aiosqlite://{database}")


# --- urls and PostgreSQL -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tollkeeper.db", "cannot be parsed; examples: "),
        ("sqlite:///x.db", r"write sqlite\+aiosqlite:// instead of sqlite://"),
        ("postgresql://h/x", r"write postgresql\+asyncpg:// instead of postgresql://"),
        ("mysql://u:secret@h/x", r"mysql is not supported; use sqlite\+aiosqlite or postgresql"),
    ],
)
def test_wrong_urls_name_the_right_one(url, message):
    with pytest.raises(DatabaseUnusable, match=message) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)


def test_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    with pytest.raises(DatabaseUnusable, match=r"install tollkeeper\[postgres\]"):
        open_engine("postgresql+asyncpg://h/x")


async def test_unreachable_server_is_one_line_without_the_password(opened, tmp_path):
    url = f"postgresql+asyncpg://u:secret@/x?host={tmp_path}"
    with pytest.raises(DatabaseUnusable, match=r"postgresql\+asyncpg://u:\*\*\*@") as caught:
        await ping(opened(url))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_postgresql_commits_are_durable(postgres, opened):
    engine = opened(postgres.url("migrated"))
    assert await scalar(engine, "SHOW synchronous_commit") == "on"
    await engine.dispose()
