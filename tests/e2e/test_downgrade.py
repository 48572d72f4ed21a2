"""A budget that is spent for one model pays for a cheaper one (`on_exhausted: downgrade`)."""

import json
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.e2e.shapes import CHAT, CHAT_STREAM, GENERATE, Shape
from tests.e2e.stage import Stage, error_of
from tests.harness import KEY

MAP = {"gpt-4o": "gpt-4o-mini", "gemini-2.5-pro": "gemini-2.5-flash", "o3": "no-such-model"}
ONLY_4O = sha256(b"tk-only-4o").hexdigest()
TAG = "tollkeeper.downgraded_from"
_keys = [
    {"name": "search-prod", "key_sha256": sha256(KEY.encode()).hexdigest()},
    {"name": "only-4o", "key_sha256": ONLY_4O, "models": ["gpt-4o"]},
]


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    organizations = {"acme": {"teams": {"search": {"keys": _keys, "projects": {}}}}}
    # Enough for a call to the cheap model, too little for one to the dear one.
    budget = {"scope": "team/acme/search", "period": "total", "limit_usd": "0.004"} | {
        "clamp": False,
        "on_exhausted": {"downgrade": MAP},
    }
    directory = tmp_path_factory.mktemp("downgrade")
    with Stage(directory, organizations=organizations, budgets=[budget]) as stage:
        yield stage


@pytest.fixture
def stage(hall: Stage) -> Iterator[Stage]:
    hall.begin()
    yield hall
    assert hall.app.findings() == []


def called(stage: Stage, shape: Shape, path: str = "", key: str = KEY, **body: Any) -> Any:
    return stage.http.post(
        path or shape.path,
        content=shape.request(**body),
        headers=stage.headers(shape, key),
    )


def assert_downgraded(answer: httpx.Response, asked: str, got: str) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tollkeeper-downgraded-from"] == asked
    assert answer.headers["x-tollkeeper-downgraded-model"] == got


@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM], ids=str)
def test_the_cheaper_model_answers(stage: Stage, shape: Shape) -> None:
    stage.provider.reply(shape.reply())
    asked = json.dumps(shape.body | {"model": "gpt-4o", "max_completion_tokens": 500}, indent=1)
    answer = stage.http.post(shape.path, content=asked, headers=stage.headers(shape))
    assert_downgraded(answer, "gpt-4o", "gpt-4o-mini")
    sent = stage.provider.requests[0].body.decode()
    if shape is CHAT:
        assert sent == asked.replace('"gpt-4o"', '"gpt-4o-mini"')
    assert json.loads(sent)["model"] == "gpt-4o-mini"
    row = stage.row(answer)
    assert (row["model"], row["tags"]) == ("gpt-4o-mini", {TAG: "gpt-4o"})
    assert Decimal(row["cost_usd"]) == Decimal(shape.cost)


def test_the_model_in_geminis_path_is_exchanged(stage: Stage) -> None:
    stage.provider.reply(GENERATE.reply())
    path = GENERATE.path.replace("gemini-2.5-flash", "gemini-2.5-pro")
    body = GENERATE.request(generationConfig={"maxOutputTokens": 300})
    answer = stage.http.post(path, content=body, headers=stage.headers(GENERATE))
    assert_downgraded(answer, "gemini-2.5-pro", "gemini-2.5-flash")
    sent = stage.provider.requests[0]
    assert (sent.body, "models/gemini-2.5-flash:" in sent.raw_head.decode()) == (body, True)
    # The connection goes on as before: the next call asks for its own model.
    stage.provider.reply(GENERATE.reply())
    again = stage.http.post(path, content=body, headers=stage.headers(GENERATE))
    assert_downgraded(again, "gemini-2.5-pro", "gemini-2.5-flash")


@pytest.mark.parametrize(
    ("model", "key", "limit"),
    [
        ("o3", KEY, 500),  # in its stead: a model without a price
        ("gpt-4o", "tk-only-4o", 500),  # one this key may not use
        ("gpt-4o", KEY, 10_000),  # one that is too dear, too
        ("gpt-4.1", KEY, 500),  # none
    ],
)
def test_else_it_is_refused_as_ever(stage: Stage, model: str, key: str, limit: int) -> None:
    answer = called(stage, CHAT, key=key, model=model, max_completion_tokens=limit)
    assert answer.status_code == 429, answer.text
    assert error_of(answer)["code"] == "budget_exceeded"
    assert "x-tollkeeper-downgraded-from" not in answer.headers
    assert stage.seen() == 0


def test_what_can_be_paid_is_not_touched(stage: Stage) -> None:
    answer = stage.paid(CHAT)
    assert "x-tollkeeper-downgraded-from" not in answer.headers
    assert stage.row(answer)["tags"] == {}
