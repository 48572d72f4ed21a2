"""A budget that is spent for one model pays for a cheaper one (`on_exhausted: downgrade`)."""

import json
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.e2e.shapes import CHAT, CHAT_STREAM, GENERATE, Shape
from tests.e2e.stage import Stage, error_of
from tests.harness import KEY
from tests.replay import Request, json_reply

MAP = {
    "gpt-4o": "gpt-4o-mini",
    "gemini-2.5-pro": "gemini-2.5-flash",
    "amazon.nova-pro-v1:0": "amazon.nova-lite-v1:0",
    "gpt-5": "small",  # a deployment
    "o3": "no-such-model",
}
AWS = {"region": "us-east-1", "access_key_id": "AKID", "secret_access_key": "secret"}
VERTEX = "/v1/projects/p/locations/global/publishers/google/models"
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "Who pays?"}]}],
    "inferenceConfig": {"maxTokens": 2000},
}
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
    ("asked", "got", "path", "sent", "body"),
    [
        (
            "amazon.nova-pro-v1:0", "amazon.nova-lite-v1:0",
            "/bedrock/model/amazon.nova-pro-v1%3A0/converse",
            "/model/amazon.nova-lite-v1%3A0/converse", CONVERSE,
        ),
        (
            "gemini-2.5-pro", "gemini-2.5-flash",
            f"/vertex{VERTEX}/gemini-2.5-pro:generateContent?alt=json",
            f"{VERTEX}/gemini-2.5-flash:generateContent?alt=json",
            GENERATE.body | {"generationConfig": {"maxOutputTokens": 300}},
        ),
        (
            "gpt-5", "gpt-5-nano",
            "/azure/openai/deployments/big/chat/completions?api-version=2026-01-01",
            "/openai/deployments/small/chat/completions?api-version=2026-01-01",
            CHAT.body | {"max_completion_tokens": 400},
        ),
    ],
    ids=["bedrock", "vertex", "azure"],
)  # fmt: skip
def test_the_model_in_a_clouds_path_is_exchanged(
    stage: Stage, asked: str, got: str, path: str, sent: str, body: dict[str, Any]
) -> None:
    usage = {"inputTokens": 20, "outputTokens": 30, "totalTokens": 50}
    bedrock = json_reply({"usage": usage})
    replies = {"bedrock": bedrock, "vertex": GENERATE.reply(), "azure": CHAT.reply()}
    name = path.split("/")[1]
    stage.provider.reply(replies[name])
    content = json.dumps(body).encode()
    with stage.configured(providers=clouds(stage.provider.url)):
        answer = stage.http.post(path, content=content, headers=stage.headers(CHAT))
        assert_downgraded(answer, asked, got)
        row = stage.row(answer)
    assert (row["provider"], row["model"], row["tags"]) == (name, got, {TAG: asked})
    (request,) = stage.provider.requests
    assert (request.target, request.body) == (sent, content)
    if name == "bedrock":
        assert_signed(request)


def clouds(url: str) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {
        "bedrock": {"prices": "bedrock", "aws": AWS | {"service": "bedrock"}},
        "vertex": {"prices": "vertex_ai", "api_key": "sk-vertex"},
        "azure": {"prices": "azure", "api_key": "sk-azure"}
        | {"models": {"big": "gpt-5", "small": "gpt-5-nano"}},
    }
    return {name: {"base_url": url, "dialect": name} | more for name, more in own.items()}


def assert_signed(sent: Request) -> None:
    """What the receiver computes over the request as it came, target and body, is what it says."""
    said = sent.header("authorization") or ""
    names = said.split("SignedHeaders=")[1].split(",")[0].split(";")
    url = f"https://{sent.header('host')}{sent.target}"
    headers = {name: sent.header(name) for name in names if name != "host"}
    request = AWSRequest(method="POST", url=url, data=sent.body, headers=headers)
    request.context["timestamp"] = sent.header("x-amz-date")
    auth = SigV4Auth(Credentials("AKID", "secret"), "bedrock", "us-east-1")
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    assert said.endswith(f"Signature={signature}")


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
