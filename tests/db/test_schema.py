"""The live schema against the models and the migrations."""

import pytest

from db import schema
from db.engine import open_engine


@pytest.fixture
async def engine(tmp_path):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    yield engine
    await engine.dispose()


async def test_ensure_migrates_an_empty_database_and_is_repeatable(engine):
    assert await schema.current(engine) is None
    await schema.ensure(engine)
    await schema.ensure(engine)
    assert await schema.current(engine) == schema.HEAD


async def test_down_and_up_again(engine):
    await schema.upgrade(engine)
    await schema.downgrade(engine, "base")
    assert await schema.current(engine) is None
    await schema.upgrade(engine)
    await schema.check(engine)
