"""A reply with the provider's own figure: stored beside ours, charged where told to, counted."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from db.engine import reader
from db.reports import grouped
from proxy.metrics import PROVIDER_COST
from tests.e2e.shapes import CHAT, CHAT_STREAM, OPENAI_COST, Shape
from tests.e2e.stage import Stage, error_of
from tests.replay import Reply

BUDGET = {"scope": "organization/acme", "limit_usd": 1, "period": "total", "clamp": False}
FIGURE = "0.00003"


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stage]]:
    with (
        Stage(tmp_path_factory.mktemp("priced"), budgets=[BUDGET]) as priced,
        Stage(tmp_path_factory.mktemp("reported"), budgets=[BUDGET]) as reported,
    ):
        providers: dict[str, Any] = {
            "openai": {
                "dialect": "openai",
                "base_url": reported.provider.url,
                "api_key": "sk-upstream-openai",
                "prices": "openai",
                "charge": "reported",
            }
        }
        reported.reload(providers=providers)
        yield {"priced": priced, "reported": reported}


@pytest.fixture
def stage(stages: dict[str, Stage], request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = stages[request.param]
    stage.begin()
    yield stage
    assert Decimal(stage.nothing_held()["spent"]) == stage.billed()
    assert stage.app.findings() == []


def with_figure(shape: Shape, usd: object, **more: Any) -> Reply:
    fields = json.dumps({"cost": usd, **more})[1:-1]
    parts = [
        part.replace(b'"usage": {"', f'"usage": {{{fields}, "'.encode()) for part in shape.parts
    ]
    assert parts != list(shape.parts)
    return shape.reply(tuple(parts))


def paid(stage: Stage, shape: Shape, usd: object, **more: Any) -> dict[str, Any]:
    stage.provider.reply(with_figure(shape, usd, **more))
    answer = stage.call(shape)
    assert answer.status_code == 200, answer.text
    return stage.row(answer)


@pytest.mark.parametrize("stage", ["priced"], indirect=True)
@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM], ids=str)
def test_by_default_ours_is_charged_and_theirs_stands_beside(stage: Stage, shape: Shape) -> None:
    row = paid(stage, shape, float(FIGURE))
    assert (row["cost_usd"], row["provider_cost_usd"]) == (OPENAI_COST, FIGURE)


@pytest.mark.parametrize("stage", ["reported"], indirect=True)
@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM], ids=str)
@pytest.mark.parametrize("figure", [FIGURE, "0", OPENAI_COST])
def test_theirs_is_charged_where_told_to(stage: Stage, shape: Shape, figure: str) -> None:
    row = paid(stage, shape, float(figure))
    assert (row["cost_usd"], row["provider_cost_usd"]) == (figure, figure)
    (item,) = row["cost_items"]
    assert item == {"item": "provider_figure", "count": round(float(figure) * 1e9), "usd": figure}


@pytest.mark.parametrize("stage", ["reported"], indirect=True)
def test_a_reply_without_a_figure_is_priced(stage: Stage) -> None:
    stage.provider.reply(CHAT.reply())
    row = stage.row(stage.call(CHAT))
    assert row["cost_usd"] == OPENAI_COST
    assert "provider_cost_usd" not in row


@pytest.mark.parametrize("stage", ["reported"], indirect=True)
def test_a_figure_above_the_ceiling_is_charged_up_to_it(stage: Stage) -> None:
    """A budget is not passed because of what a reply claims."""
    row = paid(stage, CHAT, 5)
    assert (row["cost_usd"], row["provider_cost_usd"]) == (row["hold_usd"], "5")


@pytest.mark.parametrize("stage", ["reported"], indirect=True)
@pytest.mark.parametrize("figure", [10**30, -1, "many", True, None, {"total": 1}, 1e300])
def test_figures_that_are_none(stage: Stage, figure: object) -> None:
    row = paid(stage, CHAT, figure)
    assert row["cost_usd"] == OPENAI_COST


@pytest.mark.parametrize("stage", ["reported"], indirect=True)
def test_somebody_elses_key_pays(stage: Stage) -> None:
    row = paid(stage, CHAT, 0, is_byok=True)
    assert row["cost_usd"] == OPENAI_COST


@pytest.mark.parametrize("stage", ["priced", "reported"], indirect=True)
def test_drift_is_counted_and_reported(stage: Stage) -> None:
    gateway = stage.app.app.gateway
    assert gateway is not None

    def counted() -> dict[str, int]:
        counts = gateway._telemetry.metrics._provider_costs  # with every call that has ended
        return dict(zip(PROVIDER_COST, counts.get("openai", [0] * 4), strict=True))

    before, sums_before = counted(), sums(stage)
    paid(stage, CHAT, float(FIGURE))
    paid(stage, CHAT, float(OPENAI_COST))
    after = counted()
    assert {name: after[name] - before[name] for name in PROVIDER_COST} == {
        "calls": 2, "drifted": 1, "reported_nano": 54_000, "priced_nano": 48_000,
    }  # fmt: skip
    changed = [now - was for now, was in zip(sums(stage), sums_before, strict=True)]
    assert changed == [Decimal("0.000054"), Decimal("0.000006")]


def sums(stage: Stage) -> list[Decimal]:
    async def read() -> list[dict[str, Any]]:
        async with reader(stage.app._reader()).connect() as connection:
            return await grouped(connection, [])

    stage.app.rows()
    (row,) = stage.app.run(read())
    return [Decimal(row["provider_cost_usd"]), Decimal(row["drift_usd"])]


@pytest.mark.parametrize("stage", ["reported"], indirect=True)
def test_budgets_count_what_is_charged(stage: Stage) -> None:
    before = Decimal(stage.standing()["spent"])
    paid(stage, CHAT, float(FIGURE))
    assert Decimal(stage.standing()["spent"]) - before == Decimal(FIGURE)
    assert error_of(stage.call(CHAT, max_completion_tokens=10**9))["code"] == "budget_exceeded"
