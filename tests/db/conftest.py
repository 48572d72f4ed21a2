"""Every test of the database runs on SQLite and on PostgreSQL."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import schema
from db.engine import open_engine
from tests.databases import EmptiedDatabases, Postgres, find_postgres
from tests.db.books import Books, clean_books

TEMPLATE = "migrated"


async def _migrate(url: str) -> None:
    engine = open_engine(url)
    await schema.upgrade(engine)
    await engine.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (no initdb on PATH or in /usr/lib/postgresql)")
    server = Postgres(binaries)
    try:
        asyncio.run(_migrate(server.create(TEMPLATE)))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> EmptiedDatabases:
    return EmptiedDatabases(postgres, TEMPLATE)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "ledger.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def database_names() -> Iterator[str]:
    return (f"test_{number}" for number in count())


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(
    request: pytest.FixtureRequest, tmp_path: Path, database_names: Iterator[str]
) -> Iterator[str]:
    """The URL of a database nothing was ever stored in."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = next(database_names)
    yield server.create(name)
    server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    databases: EmptiedDatabases = request.getfixturevalue("migrated_postgres")
    url = databases.take()
    yield url
    databases.give_back(url)


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(url)
    yield engine
    await engine.dispose()


@pytest.fixture
def write(engine: AsyncEngine) -> Callable[..., Awaitable[Any]]:
    """Run a function on a connection and commit."""

    async def write(function: Callable[..., Any], *arguments: object, **options: object) -> Any:
        async with engine.begin() as connection:
            return await connection.run_sync(lambda sync: function(sync, *arguments, **options))

    return write


@pytest.fixture
async def books(write: Callable[..., Awaitable[Books]]) -> Books:
    return await write(clean_books)
