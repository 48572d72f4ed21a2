"""Budgets that are not enforced, through the whole proxy: they count, and refuse nothing."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import select

from db.journal_records import FLAG_WOULD_REFUSE
from db.models import Budget, UsageCost, Window
from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, eventually
from tests.harness import KEY

COST = Decimal(CHAT.cost)


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("unenforced")) as stage:
        yield stage


@pytest.fixture
def stage(hall: Stage) -> Iterator[Stage]:
    hall.begin()
    yield hall
    assert hall.app.findings() == []


def a_budget(number: int, **fields: object) -> dict[str, object]:
    own = {"scope": "team/acme/search", "period": "total", "models": ["*", f"unused-{number}"]}
    return own | {"enforce": False} | fields


def windows(stage: Stage) -> dict[str, tuple[int, int, int]]:
    """(committed, overage, spared) of each budget, by the unused model that tells them apart."""
    stage.app.rows()
    return stage.app.run(_windows(stage))


async def _windows(stage: Stage) -> dict[str, tuple[int, int, int]]:
    async with stage.app._reader().connect() as connection:
        query = select(Budget.models, Window.committed, Window.overage, Window.spared).join(
            Window, Window.budget_id == Budget.id
        )
        return {row[0][-1]: tuple(row[1:]) for row in await connection.execute(query)}


def test_a_call_it_would_refuse_goes_on_and_is_counted(stage: Stage) -> None:
    with stage.configured(budgets=[a_budget(1, limit_usd="0.00003")]):
        rows = [stage.row(stage.paid(CHAT)) for _ in range(3)]
        assert all(row["would_refuse"] for row in rows)
        assert [Decimal(row["cost_usd"]) for row in rows] == [COST] * 3
        nano = int(COST * 10**9) * 3
        assert windows(stage)["unused-1"] == (nano, nano, 3)
        gateway = stage.app.app.gateway
        assert gateway is not None
        assert gateway._telemetry.metrics._spared["team"] == 3


def test_what_it_can_pay_is_backed_like_any_other(stage: Stage) -> None:
    with stage.configured(budgets=[a_budget(2, limit_usd=1)]):
        row = stage.row(stage.paid(CHAT))
        assert "would_refuse" not in row
        committed, overage, spared = windows(stage)["unused-2"]
        assert committed >= COST * 10**9
        assert (overage, spared) == (0, 0)


def test_an_enforced_budget_of_the_same_call_refuses(stage: Stage) -> None:
    both = [a_budget(3, limit_usd=0), a_budget(4, limit_usd="0.0008", enforce=True, clamp=False)]
    with stage.configured(budgets=both):
        answer = stage.paid(CHAT)
        assert stage.row(answer)["would_refuse"]
        assert Decimal(answer.headers["x-tollkeeper-remaining-usd"]) > 0
        refused = stage.call(CHAT, max_completion_tokens=2000)
        assert refused.status_code == 429
        assert "0.0008" in refused.text
        assert windows(stage)["unused-4"][1:] == (0, 0)


def test_a_cap_per_request_and_clamping_change_nothing(stage: Stage) -> None:
    budgets = [
        a_budget(5, limit_usd="0.0000001", period="request"),
        a_budget(6, limit_usd="0.01", clamp=True),
    ]
    body = {name: value for name, value in CHAT.body.items() if name != "max_completion_tokens"}
    with stage.configured(budgets=budgets):
        stage.provider.reply(CHAT.reply())
        answer = stage.http.post(CHAT.path, json=body, headers=stage.headers(CHAT, KEY))
        assert answer.status_code == 200
        assert "x-tollkeeper-clamped-max-tokens" not in answer.headers
        assert stage.row(answer)["would_refuse"]


def test_it_refuses_once_it_is_enforced(stage: Stage) -> None:
    with stage.configured(budgets=[a_budget(7, limit_usd="0.00003")]):
        stage.paid(CHAT)
        stage.paid(CHAT)
        stage.app.rows()
        stage.reload(budgets=[a_budget(7, limit_usd="0.00003", enforce=True)])
        assert stage.call(CHAT).status_code == 429


def test_soft_budgets_may_only_count(stage: Stage) -> None:
    with stage.configured(budgets=[a_budget(8, limit_tokens=1, hold="learned")]):
        row = stage.row(stage.paid(CHAT))
        assert row["would_refuse"]
        assert windows(stage)["unused-8"] == (120, 120, 1)
        flags = eventually(lambda: stage.app.run(_flags(stage)))
        assert flags[-1] == FLAG_WOULD_REFUSE


async def _flags(stage: Stage) -> list[int]:
    async with stage.app._reader().connect() as connection:
        rows = await connection.execute(select(UsageCost.flags).order_by(UsageCost.call_id))
        return list(rows.scalars())
