"""Hugging Face's router: who serves a call decides what it costs."""

import json

import pytest

from pricing.book import Overlay, PriceBook
from pricing.calculator import cost
from pricing.table import PriceTable, list_tables
from pricing.usage import Usage
from proxy.providers.registry import HOSTS, dialect

WIRE = dialect("huggingface")
MODEL = "Qwen/Qwen2.5-VL-72B-Instruct"


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return PriceTable.open(list_tables()[-1].path)


@pytest.mark.parametrize(
    ("path", "model", "known_as"),
    [
        ("/v1/chat/completions", f"{MODEL}:nebius", f"{MODEL}:nebius"),
        ("/nebius/v1/chat/completions", MODEL, f"{MODEL}:nebius"),
        ("/novita/v3/openai/chat/completions", "m", "m:novita"),
        ("/fireworks-ai/inference/v1/chat/completions", "m", "m:fireworks-ai"),
        ("/groq/openai/v1/chat/completions", "m:together", "m:together"),
        ("/v1/chat/completions", MODEL, MODEL),  # the router chooses
        ("/v1/responses", f"{MODEL}:fastest", f"{MODEL}:fastest"),
    ],
)
def test_who_serves_a_call(path: str, model: str, known_as: str) -> None:
    body = json.dumps({"model": model, "messages": [], "input": "hi"}).encode()
    route = WIRE.route("POST", path)
    assert route is not None
    facts = WIRE.facts(route, path, b"", body)
    assert facts.model == known_as
    assert WIRE.edit(facts, body, clamp=None, inject_usage=False) is body
    assert json.loads(WIRE.edit(facts, body, clamp=9, inject_usage=False))["model"] == model


def test_each_has_its_price(table: PriceTable) -> None:
    """USD per million tokens: gpt-oss-120b is $0.15 and $0.75 at Groq, $0.35 and $0.75 at
    Cerebras."""
    book = PriceBook(table)
    for place, usd in (("groq", 1_000 * 150 + 100 * 750), ("cerebras", 1_000 * 350 + 100 * 750)):
        price = book.quote(HOSTS["huggingface"].name, "gpt-oss", f"openai/gpt-oss-120b:{place}")
        assert price is not None
        assert price.key == f"huggingface_{place}/openai/gpt-oss-120b"
        assert cost(Usage(1_000, 100), price).nano == usd
        again = book.by_key(price.key)
        assert again is not None
        assert (again.key, again.entry) == (price.key, price.entry)


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:fastest", f"{MODEL}:nobody", ":nebius", ":"])
def test_without_it_nothing_has_a_price(table: PriceTable, model: str) -> None:
    assert PriceBook(table).quote("huggingface", model) is None


def test_overlays_are_for_the_router(table: PriceTable) -> None:
    book = PriceBook(table, [Overlay(provider="huggingface", discount_percent="50")])
    price = book.quote("huggingface", "openai/gpt-oss-120b:groq")
    assert price is not None
    assert cost(Usage(1_000, 0), price).nano == 75_000
    stored = book.by_key(price.key)
    assert stored is not None
    assert stored.entry == price.entry
