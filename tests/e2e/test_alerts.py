"""From a call to the alert: what workers see and the ledger has reaches whoever is to be told."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from db import alerts as db
from db.engine import open_engine, reader
from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, eventually


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    budget = {"scope": "team/acme/search", "limit_usd": 1, "alert_at": [0.001]}
    with Stage(tmp_path_factory.mktemp("alerts"), budgets=[budget]) as stage:
        yield stage


def looked(stage: Stage, kind: str) -> list[Any]:
    """What was raised of a kind, after one round."""
    alerting = stage.app.app._alerting
    assert alerting is not None

    async def recent() -> list[Any]:
        await stage.app.app.control.flush()
        await alerting.look()
        engine = open_engine(stage.app.config.database.url, read_only=True)
        async with reader(engine).connect() as connection:
            found = await connection.run_sync(partial(db.recent, kinds=[kind]))
        await engine.dispose()
        return [each.message for each in found]

    return stage.app.run(recent())


def test_a_budget_that_crosses_its_threshold(stage: Stage) -> None:
    stage.paid(CHAT)
    (found,) = eventually(lambda: looked(stage, "budget_threshold"))
    assert found.scope == "team/acme/search"
    stage.paid(CHAT)
    assert len(looked(stage, "budget_threshold")) == 1


def test_a_model_without_a_price(stage: Stage) -> None:
    assert stage.call(CHAT, model="of-tomorrow").status_code == 403
    (found,) = eventually(lambda: looked(stage, "unpriced_model"))
    assert "openai/of-tomorrow" in found.summary
