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
        "-c max_connections=60 -c shared_buffers=16MB -c log_min_messages=fatal"
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
