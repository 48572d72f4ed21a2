"""One engine for all who read; it is given up with its file, and after errors."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db.engine import open_engine
from db.errors import DatabaseUnusable
from proxy.control.readers import Readers

SAID = text("SELECT what FROM said")


async def made(path, what):
    engine = open_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE said (what TEXT)"))
        await connection.execute(text("INSERT INTO said VALUES (:what)"), {"what": what})
    await engine.dispose()


async def read(readers):
    async with readers.engine() as engine, engine.connect() as connection:
        return engine, (await connection.execute(SAID)).scalar_one()


@pytest.fixture
async def readers(tmp_path):
    await made(tmp_path / "ledger.db", "first")
    readers = Readers(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    yield readers
    await readers.close()


async def test_requests_share_an_engine_and_its_connections(readers):
    first, said = await read(readers)
    second, _ = await read(readers)
    assert first is second
    assert said == "first"
    assert first.sync_engine.pool.checkedin() == 1


async def test_a_file_in_the_place_of_another_is_read(readers, tmp_path):
    await read(readers)
    (tmp_path / "ledger.db").rename(tmp_path / "away.db")
    with pytest.raises(DatabaseUnusable, match="does not exist"):
        await read(readers)
    await made(tmp_path / "ledger.db", "second")
    assert (await read(readers))[1] == "second"


async def test_after_an_error_there_is_a_new_one_and_others_finish_with_theirs(readers):
    first, _ = await read(readers)
    async with readers.engine() as theirs, theirs.connect() as connection:
        with pytest.raises(OperationalError):
            async with readers.engine() as engine, engine.connect() as broken:
                await broken.execute(text("SELECT nothing FROM nowhere"))
        second, _ = await read(readers)
        assert second is not first is theirs
        assert (await connection.execute(SAID)).scalar_one() == "first"
    assert first.sync_engine.pool.checkedin() == 0


async def test_what_is_asked_wrongly_costs_nobody_the_engine(readers):
    first, _ = await read(readers)
    with pytest.raises(ValueError, match="asked"):
        async with readers.engine():
            raise ValueError("asked wrongly")
    assert (await read(readers))[0] is first
