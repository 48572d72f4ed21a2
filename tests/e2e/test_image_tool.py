"""A response that draws: held before it runs, billed at the image model, the books right."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.e2e.shapes import RESPONSES
from tests.e2e.stage import Stage, error_of, eventually
from tests.replay import Gate, Reply, json_reply

TOOL = {"type": "image_generation", "model": "gpt-image-1-mini"}


def drawing(**how: Any) -> Reply:
    """20 text tokens in at $2, 1,000 image tokens out at $8 for a million, beside the usual."""
    drawn = {
        "input_tokens": 20,
        "input_tokens_details": {"text_tokens": 20, "image_tokens": 0},
        "output_tokens": 1_000,
        "output_tokens_details": {"image_tokens": 1_000, "text_tokens": 0},
        "total_tokens": 1_020,
    }
    reply = json.loads(RESPONSES.reply_body)
    return json_reply(reply | {"tools": [TOOL], "tool_usage": {"image_gen": drawn}}, **how)


def test_a_drawing_is_held_and_billed_at_its_own_model(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        stage.provider.reply(drawing())
        answer = stage.call(RESPONSES, tools=[TOOL], max_tool_calls=1)
        assert answer.status_code == 200, answer.text
        row = stage.row(answer)
        own = Decimal(RESPONSES.cost)
        assert Decimal(row["cost_usd"]) == own + Decimal("0.00004") + Decimal("0.008")
        assert Decimal("0.17") < Decimal(row["hold_usd"])
        assert not stage.app.findings()


def test_what_it_can_cost_is_not_left_for_others(tmp_path: Path) -> None:
    budget = {"scope": "team/acme/search", "limit_usd": 0.3, "period": "total", "hold_wait_ms": 0}
    with Stage(tmp_path, budgets=[budget]) as stage:
        gate = Gate()
        stage.provider.reply(drawing(before=gate))
        body = RESPONSES.body | {"tools": [TOOL], "max_tool_calls": 1}
        with stage.raw_call(replace(RESPONSES, body=body)) as first:
            eventually(lambda: stage.seen() == 1)
            second = stage.call(RESPONSES, tools=[TOOL], max_tool_calls=1)
            assert second.status_code == 429
            assert error_of(second)["code"] == "budget_busy"
            gate.open()
            assert b"200" in first.read_until(b"\r\n")


def test_an_image_model_without_a_price_is_refused(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        answer = stage.call(RESPONSES, tools=[TOOL | {"model": "gpt-image-99"}])
        assert answer.status_code == 403
        assert error_of(answer)["code"] == "model_not_priced"
        assert "gpt-image-99" in answer.text
        assert not stage.seen()
