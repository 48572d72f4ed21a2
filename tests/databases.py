"""Real databases for tests: a SQLite file, and a PostgreSQL started from installed binaries."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


def find_postgres() -> Path | None:
    """The directory of initdb and pg_ctl; None: not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


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
        self._run(
            "pg_ctl", "-D", str(self._data), "-l", str(self._directory / "log"), "-w",
            "-o", f"{self.SETTINGS} -k {self._directory}", "start",
        )  # fmt: skip

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

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._directory)
