"""Real databases for tests: a SQLite file, and a PostgreSQL started from installed binaries."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from db.engine import open_engine


def find_postgres() -> Path | None:
    """The directory of initdb and pg_ctl; None: not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


START_S_MAX = 20.0


class Postgres:
    """A throw-away server on a Unix socket; nothing in it survives, so it never syncs."""

    SETTINGS = (
        "-c listen_addresses= -c fsync=off -c synchronous_commit=off -c full_page_writes=off "
        "-c max_connections=60 -c shared_buffers=16MB -c dynamic_shared_memory_type=mmap "
        "-c log_min_messages=fatal -c jit=off -c autovacuum=off"
    )

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._directory = Path(tempfile.mkdtemp(prefix="tollkeeper-pg-"))
        self._account = self._find_account()
        self._data = self._directory / "data"
        self._run(
            "initdb", "-D", str(self._data), "-U", "tollkeeper", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        self.start()

    def _find_account(self) -> dict[str, object]:
        """PostgreSQL refuses to run as root, so root borrows another account."""
        if os.geteuid() != 0:
            return {}
        account = pwd.getpwnam("postgres")
        os.chown(self._directory, account.pw_uid, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(  # type: ignore[call-overload]
            [self._binaries / program, *arguments],
            check=True, cwd=self._directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, **self._account,
        )  # fmt: skip

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://tollkeeper@/{database}?host={self._directory}"

    async def connect(self, database: str) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            user="tollkeeper", database=database, host=str(self._directory)
        )

    def create(self, database: str, template: str = "template0") -> str:
        """Make a database; returns its URL."""
        self._run(
            "createdb", "-h", str(self._directory), "-U", "tollkeeper", "-T", template, database
        )
        return self.url(database)

    def drop(self, database: str) -> None:
        self._run("dropdb", "-h", str(self._directory), "-U", "tollkeeper", "-f", database)

    def start(self) -> None:
        """Again, after `pause` or `kill`; it accepts connections when this returns. After a kill
        it refuses as long as a process of its former life is not gone."""
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                self._run(
                    "pg_ctl", "-D", str(self._data), "-l", str(self._directory / "log"), "-w",
                    "-o", f"{self.SETTINGS} -k {self._directory}", "start",
                )  # fmt: skip
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def pause(self) -> None:
        """Stop it as a restart would: connections are ended, what was committed is kept."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "fast", "-w", "stop")

    def kill(self) -> None:
        """kill -9 of every process of it at once, in the middle of whatever they do."""
        lines = (self._data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, listed)):
            os.kill(each, signal.SIGKILL)

    def stop(self) -> None:
        """For good."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._directory)


def query(url: str, sql: str) -> list[Any]:
    """The rows, straight from a database."""

    async def run() -> list[Any]:
        engine = open_engine(url, read_only=True)
        try:
            async with engine.connect() as connection:
                return [tuple(row) for row in await connection.exec_driver_sql(sql)]
        finally:
            await engine.dispose()

    return asyncio.run(run())


class EmptiedDatabases:
    """Databases like a template, emptied and used again: that takes a hundredth of making one."""

    TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    SEQUENCES = """SELECT sequencename, start_value FROM pg_sequences
        WHERE schemaname = 'public' ORDER BY 1"""
    # A copy of a template has its very catalog; whatever alters a table writes a row of it anew.
    SHAPE = """SELECT array[
        (SELECT md5(string_agg(format('%s %s', oid, xmin), ' ' ORDER BY oid)) FROM pg_class
         WHERE relnamespace = 'public'::regnamespace),
        (SELECT md5(string_agg(format('%s %s', oid, xmin), ' ' ORDER BY oid)) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace),
        (SELECT md5(string_agg(format('%s %s', attrelid, xmin), ' ' ORDER BY attrelid, attnum))
         FROM pg_attribute WHERE attrelid >= 16384)]"""
    OTHERS_OUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""

    def __init__(self, server: Postgres, template: str) -> None:
        self._server = server
        self._template = template
        self._free: list[str] = []
        self._made = 0
        self._shape: list[str] = []
        self._tables: list[str] = []
        self._sequences: list[tuple[str, int]] = []
        self._rows: dict[str, str] = {}  # of the template, as JSON, by table

    def take(self) -> str:
        """The URL of a database with nothing in it but what migrations put there."""
        if self._free:
            return self._server.url(self._free.pop())
        self._made += 1
        name = f"{self._template}_{self._made}"
        self._server.create(name, self._template)
        if not self._rows:
            asyncio.run(self._learn(name))
        return self._server.url(name)

    def give_back(self, url: str) -> None:
        """Once nobody uses it. One whose tables are no longer the template's is dropped."""
        name = url.split("@/")[1].split("?", maxsplit=1)[0]
        if asyncio.run(self._empty(name)):
            self._free.append(name)
        else:
            self._server.drop(name)

    async def _learn(self, name: str) -> None:
        connection = await self._server.connect(name)
        self._shape = await connection.fetchval(self.SHAPE)
        self._tables = [table for (table,) in await connection.fetch(self.TABLES)]
        self._sequences = [tuple(each) for each in await connection.fetch(self.SEQUENCES)]
        for table in self._tables:
            rows = await connection.fetchval(f"SELECT json_agg(t)::text FROM {table} AS t")
            if rows is not None:
                self._rows[table] = rows
        await connection.close()

    async def _empty(self, name: str) -> bool:
        connection = await self._server.connect(name)
        try:
            await connection.execute(self.OTHERS_OUT)
            if await connection.fetchval(self.SHAPE) != self._shape:
                return False
            await connection.execute(
                "SET session_replication_role = replica;"  # foreign keys do not matter here
                + "".join(f"DELETE FROM {table};" for table in self._tables)
                + "".join(
                    f"SELECT setval('{name}', {start}, false);" for name, start in self._sequences
                )
            )
            for table, rows in self._rows.items():
                await connection.execute(
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE "
                    f"SELECT * FROM json_populate_recordset(NULL::{table}, $1)",
                    rows,
                )
            return True
        finally:
            await connection.close()
