"""The demo's parts without the proxy: its configuration, its callers, its screen."""

import io
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from pricing.rates import CACHE_READ, CACHE_WRITE, INPUT, OUTPUT
from pricing.table import PriceTable, list_tables
from proxy.config_loader import load
from proxy.demo.callers import Refused
from proxy.demo.provider import LIST_PRICES, SimulatedProvider
from proxy.demo.scenario import CALLERS, LIMITS_USD, Caller, config_yaml, prompts
from proxy.demo.screen import View, draw, summary
from proxy.demo.serving import served


def test_configuration_loads_and_has_every_caller(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml("http://127.0.0.1:1", 2, 3))
    config = load(path, {})
    teams = config.organizations["acme"].teams
    assert {(team, key.name) for team in teams for key in teams[team].keys} == {
        (caller.team, caller.key) for caller in CALLERS
    }
    assert {budget.scope: budget.limit_usd for budget in config.budgets} == LIMITS_USD


@pytest.mark.parametrize("model", LIST_PRICES)
def test_the_providers_list_prices_are_those_of_the_newest_table(model: str) -> None:
    """Otherwise the demo would, rightly, report a difference."""
    info = list_tables()[-1]
    table = PriceTable.open(info.path)
    provider = next(p for p in ("openai", "anthropic", "gemini") if table.entry(p, model))
    entry = table.entry(provider, model)
    assert entry is not None
    price = LIST_PRICES[model]
    million = Decimal(1_000_000)
    assert Decimal(entry[INPUT]) * million == price.input
    assert Decimal(entry[OUTPUT]) * million == price.output
    assert Decimal(entry.get(CACHE_READ, entry[INPUT])) * million == price.cache_read
    assert Decimal(entry.get(CACHE_WRITE, entry[INPUT])) * million == price.cache_write


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.key)
def test_callers_speak_to_the_provider(caller: Caller) -> None:
    sdks = pytest.importorskip("proxy.demo.callers").Sdks()
    provider = SimulatedProvider(caller.secret)
    with served(provider) as url:
        call = sdks.caller(url, caller)
        for prompt in list(prompts(caller))[:2]:
            assert call(prompt) is None
    assert [bill.model for bill in provider.bills] == [caller.model] * 2


def test_errors_other_than_refusals_are_not_hidden() -> None:
    openai = pytest.importorskip("openai")
    sdks = pytest.importorskip("proxy.demo.callers").Sdks()
    with served(SimulatedProvider("other")) as url, pytest.raises(openai.AuthenticationError):
        sdks.caller(url, CALLERS[0])("Hello?")


def test_every_prompt_is_asked_once() -> None:
    asked = [prompt for caller in CALLERS for prompt in prompts(caller)]
    assert len(set(asked)) == len(asked) == sum(caller.calls for caller in CALLERS)


def row(team: str, usd: str) -> dict[str, object]:
    return {
        "request_id": f"{team}-{usd}",
        "team": team,
        "user": "ann",
        "model": "text-embedding-3-small",
        "route": "chat.completions",
        "stream": True,
        "input_tokens": 1_234,
        "cache_read_tokens": 620,
        "output_tokens": 1_234,
        "cost_usd": usd,
    }


def text_of(renderable: object) -> str:
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_screen_fits_a_hundred_columns() -> None:
    view = View("http://127.0.0.1:54321", LIMITS_USD, [row("search", "0.0123456789")] * 30)
    view.refusals.append(Refused(CALLERS[0], "openai.RateLimitError", "code", "Error " * 60))
    shown = text_of(draw(view))
    assert "…" not in shown
    assert "$0.012346" in shown
    assert "refusing, $-0.320370 left" in shown
    assert "30 calls in the ledger" in shown


def test_screen_fits_a_low_terminal() -> None:
    view = View("http://127.0.0.1:54321", LIMITS_USD, [row("search", "0.1")] * 30, height=24)
    view.refusals.append(Refused(CALLERS[0], "openai.RateLimitError", "code", "Error " * 40))
    assert len(text_of(draw(view)).splitlines()) <= 24


def test_rows_are_shown_as_they_come_in() -> None:
    view = View("", LIMITS_USD)
    first, second = row("search", "0.2"), row("search", "0.1")
    assert view.add([first]) == [first]
    assert view.add([second, first]) == [second]
    assert view.rows == [first, second]


def test_spent_by_scope() -> None:
    rows = [row("search", "0.1"), row("acme/support", "0.02")]
    view = View("", LIMITS_USD, rows)
    assert view.spent("organization/acme") == Decimal("0.12")
    assert view.spent("team/acme/search") == Decimal("0.1")


def test_summary_shows_exact_costs() -> None:
    teams = [row("search", "0.012345678") | {"calls": 3}]
    assert "$0.012345678" in text_of(summary(View("", LIMITS_USD), teams))
