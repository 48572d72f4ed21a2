"""The official SDKs through Tollkeeper against the real providers; costs a few cents at most.

Runs only when asked for (`make live`), and only for providers whose usual key variable is set.
Tollkeeper itself enforces the spending limit: one budget over everything, in total.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from proxy.providers.registry import HOSTS
from tests.harness import KEY, Running, a_config
from tests.sdk.sdks import SDKS, Sdk

LIMIT_USD = Decimal("0.05")
ASKED_FOR = "TOLLKEEPER_LIVE"  # set by scripts/live
NOWHERE = "http://127.0.0.1:1"  # where providers without a key are

# Small models that most accounts may call; another one: TOLLKEEPER_LIVE_OPENAI=...
MODELS = {
    provider: os.environ.get(f"TOLLKEEPER_LIVE_{provider.upper()}") or model
    for provider, model in (
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5"),
        ("gemini", "gemini-2.5-flash-lite"),
    )
}

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.environ.get(ASKED_FOR), reason="only with `make live`: costs money"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inside the SDKs
]


def key_of(provider: str) -> str | None:
    variables = HOSTS[provider].variables
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)


def chosen(sdk: Sdk) -> Any:
    """An SDK with a small model; skipped where the key of its provider is not here."""
    variables = " or ".join(HOSTS[sdk.provider].variables)
    lacks_key = pytest.mark.skipif(not key_of(sdk.provider), reason=f"{variables} is not set")
    return pytest.param(replace(sdk, model=MODELS[sdk.provider]), id=sdk.name, marks=lacks_key)


CHOSEN = [chosen(sdk) for sdk in SDKS]


@pytest.fixture(scope="module")
def tollkeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    providers = {
        name: {"base_url": HOSTS[name].base_url, "dialect": HOSTS[name].dialect}
        | {"api_key": key, "prices": name}
        for name in MODELS
        if (key := key_of(name))
    }
    budget = {"scope": "organization/acme", "limit_usd": LIMIT_USD, "period": "total"}
    config = a_config(
        tmp_path_factory.mktemp("live"), NOWHERE, providers=providers, budgets=[budget]
    )
    with Running(config) as running:
        yield running
        spent = sum(Decimal(row["cost_usd"]) for row in running.rows())
        assert spent <= LIMIT_USD
        assert running.findings() == []


def rows_before(tollkeeper: Running) -> set[Any]:
    return {row["request_id"] for row in tollkeeper.rows()}


def assert_one_exact_row(tollkeeper: Running, before: set[Any], sdk: Sdk, route: str) -> None:
    """One answered call, its cost from the provider's own figures and within its hold. What an
    SDK retried after a provider's error has rows of its own, which cost nothing."""
    rows = [row for row in tollkeeper.rows() if row["request_id"] not in before]
    failed = [row for row in rows if row["http_status"] != 200]
    (row,) = [row for row in rows if row not in failed]
    assert all(Decimal(each["cost_usd"]) == 0 for each in failed)
    assert (row["provider"], row["model"], row["route"]) == (sdk.provider, sdk.model, route)
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert row["input_tokens"] > 0
    assert row["output_tokens"] > 0
    assert 0 < Decimal(row["cost_usd"]) <= Decimal(row["hold_usd"])


@pytest.mark.parametrize("sdk", CHOSEN)
def test_a_call(tollkeeper: Running, sdk: Sdk) -> None:
    before = rows_before(tollkeeper)
    assert sdk.ask(sdk.base(tollkeeper.url), KEY)
    assert_one_exact_row(tollkeeper, before, sdk, sdk.route)


@pytest.mark.parametrize("sdk", CHOSEN)
def test_a_stream(tollkeeper: Running, sdk: Sdk) -> None:
    before, seen = rows_before(tollkeeper), list[Any]()
    sdk.stream(sdk.base(tollkeeper.url), KEY, seen)
    assert len(seen) > 1
    assert_one_exact_row(tollkeeper, before, sdk, sdk.stream_route)
