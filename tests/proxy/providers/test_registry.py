import re
from pathlib import Path

import pytest

from proxy.providers.base import Dialect, Route
from proxy.providers.openai import OpenAI
from proxy.providers.openai_realtime import ANSWER, TRANSCRIPT
from proxy.providers.registry import DIALECT_NAMES, check, dialect

CEILINGS = (Path(__file__).parents[3] / "docs/ceilings.md").read_text()
LATER = {
    *("moderations", "responses.input_tokens"),
    *("files", "batches.read", "responses.read"),
}
FREE_POSTS = {
    "anthropic": {"messages.count_tokens", "messages.batches.read"},
    **dict.fromkeys(("openai", "azure", "groq"), LATER),
    "cohere": {
        *("moderations", "responses.input_tokens"),
        *("tokenize", "detokenize", "check-api-key"),
    },
    "mistral": set(),
    "ollama": {"moderations", "responses.input_tokens", "api.show"},
    "voyage": set(),
    "gemini": {"moderations", "responses.input_tokens", "countTokens"},
    "bedrock": {"count-tokens"},
    "vertex": {"countTokens", "computeTokens"},
}


def test_the_dialects() -> None:
    assert {dialect(name).name for name in DIALECT_NAMES} == set(DIALECT_NAMES)
    assert dialect("openai", "max_tokens").clamp_field == "max_tokens"
    assert dialect("openai").clamp_field == "max_completion_tokens"
    with pytest.raises(KeyError):
        dialect("telegraph")


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_every_example_resolves_to_its_route(name: str) -> None:
    wire = dialect(name)
    for method, path, route in wire.routes():
        assert wire.route(method, path) == route
        assert wire.route(method, "/some/prefix" + path) == route


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_no_write_is_free_but_those_that_cost_nothing(name: str) -> None:
    free = {
        route.name
        for method, _, route in dialect(name).routes()
        if method != "GET" and route.kind == "free"
    }
    assert free == FREE_POSTS.get(name, {"moderations", "responses.input_tokens"})


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_metered_routes_have_an_operation(name: str) -> None:
    for _, _, route in dialect(name).routes():
        assert bool(route.operation) is (route.kind == "metered")


class Contradicting(OpenAI):
    def route(self, method: str, path: str) -> Route | None:
        return Route("files", "free") if path.endswith("/files") else super().route(method, path)


class Open(OpenAI):
    def route(self, method: str, path: str) -> Route | None:
        found = super().route(method, path)
        return Route("read", "free") if method == "PATCH" else found


@pytest.mark.parametrize("wrong", [Contradicting(), Open()])
def test_a_dialect_that_lies_is_caught(wrong: Dialect) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


def metered_routes(name: str) -> set[str]:
    return {route.name for _, _, route in dialect(name).routes() if route.kind == "metered"}


def documented_routes() -> set[str]:
    rows = [line for line in CEILINGS.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])}


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_the_hold_of_every_metered_route_is_documented(name: str) -> None:
    metered = metered_routes(name)
    assert metered
    assert metered <= documented_routes()


def test_no_other_route_is_documented() -> None:
    turns = {ANSWER.name, TRANSCRIPT.name}
    metered = {route for name in DIALECT_NAMES for route in metered_routes(name)}
    assert documented_routes() == metered | turns
