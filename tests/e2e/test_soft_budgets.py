"""Soft budgets (`hold: learned`) through the whole proxy."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select

from db.engine import open_engine
from db.journal_records import FLAG_CEILING_VIOLATION, FLAG_LEARNED
from db.models import Budget, UsageCost, Window
from proxy.learned import REPLIES_MIN, SLACK
from proxy.telemetry import ABOVE_CEILING
from tests.e2e.shapes import CHAT, MESSAGES, Shape
from tests.e2e.stage import Stage
from tests.replay import Reply, json_reply

NANO = Decimal(10) ** -9
DEAREST_IN, DEAREST_OUT = 250, 1000  # nano-USD per token of gpt-4o-mini, in the priority tier
LEARNED_NANO = SLACK * (100 * DEAREST_IN + 20 * DEAREST_OUT)  # CHAT reports 100 in, 20 out
STRICT_NANO = (len(CHAT.request()) + 2048) * DEAREST_IN + 200 * DEAREST_OUT
SOFT = {"scope": "team/acme/search", "limit_usd": 1, "period": "total", "hold": "learned"}
SOFT_TOKENS = {"scope": "team/acme/search", "limit_tokens": 10**6, "period": "total"} | {
    "hold": "learned"
}
STRICT = {"scope": "organization/acme", "limit_usd": 1, "period": "total"}


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(tmp_path, budgets=request.param) as stage:
        yield stage
        assert stage.app.findings() == []


def teach(stage: Stage, shape: Shape = CHAT) -> None:
    for _ in range(REPLIES_MIN):
        stage.paid(shape)


def hold_of(stage: Stage, shape: Shape = CHAT) -> Decimal:
    return Decimal(stage.paid(shape).headers["x-tollkeeper-hold-usd"])


def dear_reply(output_tokens: int = 150) -> Reply:
    usage = {"prompt_tokens": 100, "completion_tokens": output_tokens, "total_tokens": 0}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "-"}}
    return json_reply({"id": "c", "model": "gpt-4o-mini", "choices": [choice], "usage": usage})


def problems(stage: Stage) -> dict[str, int]:
    gateway = stage.app.app.gateway
    assert gateway is not None
    return gateway._telemetry.metrics._problems


def overage_and_flags(stage: Stage) -> tuple[dict[str, int], list[int]]:
    """Of each budget, by scope and unit; of all rows, the flags that are set."""
    stage.app.rows()
    return stage.app.run(_overage_and_flags(stage))


async def _overage_and_flags(stage: Stage) -> tuple[dict[str, int], list[int]]:
    engine = open_engine(stage.app.config.database.url, read_only=True)
    try:
        async with engine.connect() as connection:
            windows = select(Budget.identity, Window.overage).join(
                Window, Window.budget_id == Budget.id
            )
            rows = select(UsageCost.flags).where(UsageCost.flags != 0)
            overage = {row.identity: row.overage for row in await connection.execute(windows)}
            return overage, list((await connection.execute(rows)).scalars())
    finally:
        await engine.dispose()


@pytest.mark.parametrize("stage", [[SOFT]], indirect=True)
def test_a_soft_budget_holds_what_calls_have_used(stage: Stage) -> None:
    assert hold_of(stage) == STRICT_NANO * NANO
    teach(stage)
    assert hold_of(stage) == pytest.approx(LEARNED_NANO * NANO, rel=Decimal("0.01"))
    assert hold_of(stage, MESSAGES) > Decimal("0.001")  # nothing is known of that model
    for row in stage.app.rows():
        assert Decimal(row["cost_usd"]) <= Decimal(row["hold_usd"])


@pytest.mark.parametrize("stage", [[SOFT, SOFT_TOKENS]], indirect=True)
def test_what_costs_more_than_its_hold_is_charged_in_full_and_explained(stage: Stage) -> None:
    teach(stage)
    stage.provider.reply(dear_reply())
    answer = stage.call(CHAT)
    row = stage.row(answer)
    cost = 100 * 150 + 150 * 600
    assert Decimal(row["cost_usd"]) == cost * NANO
    assert Decimal(row["hold_usd"]) < cost * NANO
    overage, flags = overage_and_flags(stage)
    assert flags == [FLAG_LEARNED]
    assert sorted(overage.values())[0] == 250 - 2 * 120
    assert sorted(overage.values())[1] == pytest.approx(cost - LEARNED_NANO, rel=0.05)
    assert hold_of(stage) > cost * NANO  # and learned


@pytest.mark.parametrize("stage", [[SOFT, STRICT]], indirect=True)
def test_strict_budgets_hold_the_ceiling_in_the_same_call(stage: Stage) -> None:
    teach(stage)
    assert hold_of(stage) == STRICT_NANO * NANO
    stage.provider.reply(dear_reply())
    assert stage.call(CHAT).status_code == 200
    overage, flags = overage_and_flags(stage)
    assert flags == [FLAG_LEARNED]
    assert problems(stage) == {}
    assert {name.partition("/")[0]: amount > 0 for name, amount in overage.items()} == {
        "organization": False,
        "team": True,
    }


@pytest.mark.parametrize("stage", [[SOFT]], indirect=True)
def test_a_cost_above_the_ceiling_is_a_violation_all_the_same(stage: Stage) -> None:
    teach(stage)
    stage.provider.reply(dear_reply(output_tokens=5_000))
    assert stage.call(CHAT).status_code == 200
    assert overage_and_flags(stage)[1] == [FLAG_LEARNED | FLAG_CEILING_VIOLATION]
    assert problems(stage) == {ABOVE_CEILING: 1}


# Enough to teach, and then half a call less than the ceiling.
LIMIT = STRICT_NANO * NANO + Decimal(CHAT.cost) * (REPLIES_MIN - Decimal("0.5"))


@pytest.mark.parametrize(
    ("stage", "admitted"),
    [
        ([SOFT | {"limit_usd": LIMIT, "clamp": False}], True),
        ([SOFT | {"limit_usd": LIMIT, "clamp": False, "hold": "ceiling"}], False),
    ],
    indirect=["stage"],
)
def test_a_soft_budget_goes_on_where_a_strict_one_ends(stage: Stage, admitted: bool) -> None:
    teach(stage)
    stage.provider.reply(CHAT.reply())
    assert (stage.call(CHAT).status_code == 200) == admitted
