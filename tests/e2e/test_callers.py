"""What a caller can ask of Tollkeeper itself: the models it may use, and how it stands."""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, credential
from tests.harness import KEY
from tests.replay import Reply, json_reply

ME = "/tollkeeper/v1/me"


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "key_sha256": sha256(f"tk-{name}".encode()).hexdigest()} | more


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    prod = key("search-prod", key_sha256=sha256(KEY.encode()).hexdigest())
    mini = key("mini", models=["*-mini", "claude-haiku-*", "gemini-2.5-flash"], user="jane")
    search = {"keys": [prod, mini], "projects": {"ranking": {}}}
    support = {"keys": [key("support")]}
    organizations = {"acme": {"teams": {"search": search, "support": support}}}
    budgets = [
        {"scope": "organization/acme", "period": "month", "limit_usd": 100},
        {"scope": "team/acme/search", "period": "total", "limit_usd": "0.5"},
        {"scope": "team/acme/support", "period": "total", "limit_usd": 7},
        {"scope": "user/acme/jane", "period": "day", "limit_tokens": 1000, "enforce": False},
        {"scope": "key/search-prod", "period": "request", "limit_usd": "0.25"},
    ]
    directory = tmp_path_factory.mktemp("callers")
    with Stage(directory, organizations=organizations, budgets=budgets) as stage:
        yield stage


@pytest.fixture
def stage(hall: Stage) -> Stage:
    hall.begin()
    return hall


# --- models --------------------------------------------------------------------------------


def openai_list() -> dict[str, Any]:
    names = ("gpt-4o", "gpt-4o-mini", "gpt-9-unheard-of", "o4-mini")
    items = [
        {"id": name, "object": "model", "created": 1.5e9, "owned_by": "system"} for name in names
    ]
    return {"object": "list", "data": items}


@pytest.mark.parametrize(
    ("name", "models"),
    [(KEY, ["gpt-4o", "gpt-4o-mini", "o4-mini"]), ("tk-mini", ["gpt-4o-mini", "o4-mini"])],
)
def test_openais_list_has_what_the_key_may_use_and_what_has_a_price(
    stage: Stage, name: str, models: list[str]
) -> None:
    stage.provider.reply(json_reply(openai_list()))
    url = f"{stage.app.url}/v1"
    client = stage.opened(OpenAI(api_key=name, base_url=url, max_retries=0))
    assert [model.id for model in client.models.list()] == models
    assert stage.rows() == []  # free of charge


def test_anthropics_list_keeps_its_cursors(stage: Stage) -> None:
    names = ("claude-haiku-4-5", "claude-sonnet-4-5")
    items = [
        {"id": name, "type": "model", "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
        for name in names
    ]
    page = {"data": items, "has_more": False, "first_id": names[0], "last_id": names[1]}
    stage.provider.reply(json_reply(page))
    url = stage.app.url
    client = stage.opened(Anthropic(api_key="tk-mini", base_url=url, max_retries=0))
    found = client.models.list()
    assert [model.id for model in found.data] == [names[0]]
    assert (found.first_id, found.last_id) == names


def test_geminis_list_too(stage: Stage) -> None:
    names = ("models/gemini-2.5-flash", "models/gemini-2.5-pro")
    page = {"models": [{"name": name} for name in names], "nextPageToken": "n"}
    stage.provider.reply(json_reply(page))
    answer = stage.http.get("/v1beta/models", headers=credential("gemini", "tk-mini"))
    assert answer.json() == {"models": [{"name": names[0]}], "nextPageToken": "n"}


def test_vertexs_list_of_a_publishers_models(stage: Stage) -> None:
    names = ("gemini-2.5-flash", "gemini-2.5-pro", "imagen-unheard-of")
    items = [{"name": f"publishers/google/models/{name}", "versionId": "1"} for name in names]
    stage.provider.reply(json_reply({"publisherModels": items, "nextPageToken": "n"}))
    with stage.configured(providers=own(stage, "vertex", "vertex_ai")):
        answer = stage.http.get(
            "/vertex/v1beta1/publishers/google/models", headers=credential("", "tk-mini")
        )
    assert answer.json() == {"publisherModels": items[:1], "nextPageToken": "n"}
    assert stage.provider.requests[0].path == "/v1beta1/publishers/google/models"


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps"])
def test_ollamas_list(stage: Stage, path: str) -> None:
    names = ("llama3:latest", "qwen3-mini", "qwen3:8b")
    items = [{"name": name, "model": name, "size": 1} for name in names]
    with stage.configured(providers=own(stage, "ollama", "free")):
        answers = []
        for key in (KEY, "tk-mini"):
            stage.provider.reply(json_reply({"models": items}))
            answers.append(stage.http.get(f"/ollama{path}", headers=credential("", key)).json())
    assert answers == [{"models": items}, {"models": items[1:2]}]


def own(stage: Stage, name: str, prices: str) -> dict[str, Any]:
    """A provider under its own name."""
    return {
        name: {"base_url": stage.provider.url, "dialect": name, "api_key": "x"} | {"prices": prices}
    }


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"object": "list",  "data": [{"id":"gpt-4o","x":1.50}]}'),
        (200, b"[1, 2]"),
        (200, b'{"data": 7}'),
        (200, b'{"data": [1]}'),
        (200, b"nothing"),
        (401, json.dumps(openai_list()).encode()),
    ],
)
def test_what_needs_no_filter_is_passed_on_as_it_is(stage: Stage, status: int, body: bytes) -> None:
    stage.provider.reply(Reply(status, [("content-type", "application/json")], body))
    answer = stage.http.get("/v1/models", headers=credential("openai"))
    assert (answer.status_code, answer.content) == (status, body)


# --- me ------------------------------------------------------------------------------------


def me(stage: Stage, name: str = KEY, **headers: str) -> dict[str, Any]:
    answer = stage.http.get(ME, headers=credential("openai", name) | headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def by_scope(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {budget["scope"]: budget for budget in found["budgets"]}


def test_a_caller_sees_its_own_budgets_and_what_is_left(stage: Stage) -> None:
    before = by_scope(me(stage))
    assert set(before) == {"organization/acme", "team/acme/search", "key/search-prod"}
    stage.paid(CHAT)
    found = me(stage)
    team = by_scope(found)["team/acme/search"]
    assert (found["key"], found["team"], found["user"]) == ("search-prod", "search", None)
    assert (team["limit"], team["held"], team["resets_at"]) == ("0.5", "0", None)
    spent = [float(each["team/acme/search"]["spent"]) for each in (before, by_scope(found))]
    assert spent[1] - spent[0] == pytest.approx(float(CHAT.cost))
    assert float(team["remaining"]) == pytest.approx(0.5 - spent[1])
    month = by_scope(found)["organization/acme"]
    assert month["resets_at"].endswith("-01T00:00:00Z")
    assert by_scope(found)["key/search-prod"]["spent"] is None


def test_other_callers_see_theirs(stage: Stage) -> None:
    jane = me(stage, "tk-mini", **{"x-tollkeeper-project": "ranking"})
    assert (jane["user"], jane["project"]) == ("jane", "ranking")
    assert "project/acme/search/ranking" in jane["scopes"]
    tokens = by_scope(jane)["user/acme/jane"]
    assert (tokens["limit"], tokens["spent"], tokens["enforced"]) == (1000, 0, False)
    assert set(by_scope(me(stage, "tk-support"))) == {"organization/acme", "team/acme/support"}


@pytest.mark.parametrize(
    ("method", "name", "status"), [("GET", "tk-wrong", 401), ("GET", "", 401), ("POST", KEY, 404)]
)
def test_nobody_else_is_told(stage: Stage, method: str, name: str, status: int) -> None:
    answer = stage.http.request(method, ME, headers=credential("openai", name))
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
