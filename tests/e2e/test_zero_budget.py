"""On a budget of $0 no metered route of any dialect lets anything reach the provider."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from proxy.providers.base import Route
from proxy.providers.registry import DIALECT_NAMES, dialect
from tests.e2e.stage import Stage, credential, error_of
from tests.replay import ReplayServer, json_reply

TABLE = [(name, *row) for name in DIALECT_NAMES for row in dialect(name).routes()]
MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "amazon.nova-lite-v1:0",
    "vertex": "gemini-2.5-flash",
}
EMBEDDERS = {
    "openai": "text-embedding-3-small",
    "gemini": "gemini-embedding-001",
    "vertex": "gemini-embedding-001",
}
WALKED = "walked"  # a model with a price at every other provider
TEXT_OPERATIONS = {"chat", "batch", "text_completion", "embeddings", "generate_content"}
OTHERS = [name for name in DIALECT_NAMES if name not in MODELS]
SPENT = {"bedrock": 400, "cohere": 402}  # their SDKs try again after any 429
FORM = "--b\r\nContent-Disposition: form-data; name="
Row = tuple[str, str, str, Route]


def rows_of_kind(
    kind: str, *, again: bool = False, batches: bool = True, dialects: Any = DIALECT_NAMES
) -> list[Row]:
    """`again`: the rows many dialects have from OpenAI's too. `batches`: also those whose hold
    follows from a file (`test_batches.py`)."""
    shared = set(dialect("openai").routes())
    return [
        row
        for row in TABLE
        if row[0] in dialects
        and (batches or row[3].name != "batches")
        and row[3].kind == kind
        and (again or row[0] == "openai" or row[1:] not in shared)
    ]


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    budgets = [{"scope": "organization/acme", "limit_usd": 0, "period": "total"}]
    directory = tmp_path_factory.mktemp("zero")
    prices = {"input_cost_per_token": "0.001", "output_cost_per_token": "0.001"}
    overlay = {
        "model": WALKED,
        "prices": prices,
        "max_input_tokens": 10_000,
        "max_output_tokens": 1_000,
    }
    with ReplayServer() as provider:
        others = {
            name: {"base_url": provider.url, "dialect": name, "api_key": "sk-upstream"}
            for name in (*OTHERS, "bedrock", "vertex")
        }
        pricing = {"overlays": [overlay]}
        with Stage(
            directory, provider=provider, budgets=budgets, providers=others, pricing=pricing
        ) as stage:
            yield stage


@pytest.fixture
def stage(hall: Stage) -> Stage:
    hall.begin()
    return hall


def model_for(row: Row) -> str:
    name, _, path, route = row
    if "/publishers/anthropic/" in path:
        return "claude-sonnet-4-5"
    if name in OTHERS or route.operation not in TEXT_OPERATIONS:
        return WALKED
    return EMBEDDERS[name] if route.operation == "embeddings" else MODELS[name]


def minimal_body(row: Row, **more: Any) -> bytes:
    """What every API needs at least, all in one."""
    part = {"parts": [{"text": "hi"}]}
    if row[3].name in ("audio.transcriptions", "audio.translations"):
        fields = (
            f'{FORM}"model"\r\n\r\n{model_for(row)}\r\n',
            f'{FORM}"file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n',
        )
        return "".join(fields).encode()
    body = {
        "input_file_id": "file-1",  # nobody has uploaded it
        "endpoint": "/v1/chat/completions",
        "model": model_for(row),
        "messages": [{"role": "user", "content": "hi"}],
        "prompt": "hi",
        "input": "hi",
        "contents": [part],
        "content": part,
        "requests": [{"content": part}],
        "instances": [{"content": "hi"}],
        "message": "hi",
        "query": "hi",
        "documents": ["hi"],
        "texts": ["hi"],
        "inputs": [["hi"]],
        "document": {"type": "image_url", "image_url": "data:image/png;base64,AA"},
    }
    if row[3].name == "messages.batches":
        body["requests"] = [{"custom_id": "1", "params": dict(body)}]
    return json.dumps(body | more).encode()


def target(row: Row) -> str:
    name, _, path, _ = row
    return f"/{name}" + path.replace("/models/m:", f"/models/{model_for(row)}:")


def send(stage: Stage, row: Row, path: str, **more: Any) -> httpx.Response:
    body = None if row[1] == "GET" else minimal_body(row, **more)
    headers = credential(row[0])
    if body and body.startswith(b"--b"):
        headers["content-type"] = "multipart/form-data; boundary=b"
    return stage.http.request(row[1], path, content=body, headers=headers)


def test_the_tables_have_what_is_walked_here() -> None:
    assert {row[0] for row in TABLE} == set(DIALECT_NAMES)
    assert len(rows_of_kind("metered")) > 20
    assert len(rows_of_kind("free")) > 10
    assert len(rows_of_kind("unmetered")) > 30


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_metered_routes_are_refused(stage: Stage, name: str) -> None:
    rows = rows_of_kind("metered", again=True, batches=False, dialects=[name])
    assert rows
    for row in rows:
        for more in ({}, {"stream": True}, {"max_tokens": 1}):
            answer = send(stage, row, target(row), **more)
            error = error_of(answer)
            spent = (SPENT.get(name, 429), "budget_exceeded")
            assert (answer.status_code, error["code"]) == spent, (row, more, answer.text)
            assert (error["scope"], error["limit"]) == ("organization/acme", "0"), row
            assert error["spent"] == "0", row
            assert answer.headers["x-should-retry"] == "false", row
    assert stage.seen() == 0
    assert stage.rows() == []


@pytest.mark.parametrize(
    "disguise",
    [
        lambda path: path + "/",
        lambda path: path + "//",
        lambda path: path + "?beta=true",
        lambda path: path[: path.rindex("/")] + "%2F" + path[path.rindex("/") + 1 :],
        lambda path: path[:-1] + f"%{ord(path[-1]):02x}",
        lambda path: path + "/../" + path.rsplit("/", 1)[1],
        lambda path: path + "/.",
        lambda path: path + ";a=b",
        lambda path: path + "%00",
        lambda path: path.upper().replace(path.split("/")[1].upper(), path.split("/")[1], 1),
        lambda path: path.replace("/v1", "//v1", 1),
        lambda path: f"/{path.split('/')[1]}/any/prefix{path[path.index('/', 1) :]}",
    ],
)
def test_no_spelling_of_a_path_gets_past(stage: Stage, disguise: Any) -> None:
    for row in rows_of_kind("metered"):
        answer = send(stage, row, disguise(target(row)))
        refused = (403, 404, SPENT.get(row[0], 429))
        assert answer.status_code in refused, (row, answer.text)
        assert stage.seen() == 0, row


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_unmetered_routes_are_refused(stage: Stage, name: str) -> None:
    for row in rows_of_kind("unmetered", dialects=[name]):
        answer = send(stage, row, target(row))
        refused = (403, "route_not_metered")
        assert (answer.status_code, error_of(answer)["code"]) == refused, row
    assert stage.seen() == 0


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_free_routes_pass(stage: Stage, name: str) -> None:
    rows = rows_of_kind("free", dialects=[name])
    for row in rows:
        stage.provider.reply(json_reply({"free": True}))
        answer = send(stage, row, target(row))
        assert (answer.status_code, answer.json()) == (200, {"free": True}), row
    assert stage.seen() == len(rows)
    assert stage.rows() == []
