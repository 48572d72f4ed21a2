"""A raise through the whole proxy: calls pass while it is in force, and no longer."""

import time
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import Connection, update

from db.catalog import bump_revision, load_budgets
from db.models import Raise
from db.raises import Span, add_raise
from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, eventually

BUDGET = {"scope": "team/acme/search", "period": "total", "limit_usd": "0.0001", "clamp": False}


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("raises"), budgets=[BUDGET]) as stage:
        yield stage
        assert stage.app.findings() == []


def changed(stage: Stage, work: object) -> None:
    control = stage.app.app.control
    assert control.parts is not None
    stage.app.run(control.parts.transactions.run(work))


def raised(connection: Connection) -> None:
    (budget,) = load_budgets(connection)
    now_ms = int(time.time() * 1000)
    span = Span(now_ms - 1000, now_ms + 3_600_000, 10**9)
    add_raise(connection, budget.id, span, made_by="ann", reason="", now_ms=now_ms)
    bump_revision(connection)


def test_calls_pass_while_a_raise_is_in_force_and_no_longer(stage: Stage) -> None:
    def answered(status: int) -> httpx.Response | None:
        stage.provider.reply(CHAT.reply())
        answer = stage.call(CHAT)
        stage.provider.reset()
        return answer if answer.status_code == status else None

    assert answered(429)
    changed(stage, raised)
    answer = eventually(lambda: answered(200))
    assert answer is not None
    assert Decimal(answer.headers["x-tollkeeper-remaining-usd"]) > Decimal("0.9")
    # Nothing tells control that it has ended, but the clock.
    changed(stage, lambda c: c.execute(update(Raise).values(until_ms=int(time.time() * 1000))))
    refused = eventually(lambda: answered(429))
    assert refused is not None
    assert "limit 0.0001 USD" in refused.text
