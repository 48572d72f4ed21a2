"""The same usage at another model: exact, and nothing left out."""

import pytest

from db.errors import ReportError
from db.report_filters import Filters
from db.whatif import Key, Repriced, what_if
from pricing.book import Overlay, PriceBook
from pricing.calculator import ceiling_cost, cost
from pricing.usage import Usage
from tests.factories import (
    NOW_MS,
    a_row,
    a_stored_key,
    a_stored_team,
    a_table,
    an_entry,
    insert_rows,
)

CHEAP = "openai/cheap"
SMALL = "openai/small"
EMBED = "openai/embed"
UNTIL = NOW_MS + 10**9


@pytest.fixture
def book(tmp_path):
    prices = {"input_cost_per_token": "0.0000001", "output_cost_per_token": "0.000001"}
    entries = {
        ("openai", "cheap"): an_entry(**prices),
        ("openai", "small"): an_entry(**prices, max_input_tokens=50),
        ("openai", "embed"): {"mode": "embedding", "input_cost_per_token": "0.0000001"},
    }
    half = Overlay(provider="openai", model="cheap", team="acme/ads", discount_percent="50")
    return PriceBook(a_table(tmp_path, entries), [half])


@pytest.fixture
def ending():
    return "lost"


@pytest.fixture
async def teams(write, ending):
    search, ads = [await write(a_stored_team, team=name) for name in ("search", "ads")]
    keys = [await write(a_stored_key, name=f"k{n}", team=t) for n, t in enumerate((search, ads))]
    searches = Usage(10, 10, units={"web_search": 2})
    lost = {"usage": {"input_tokens": 1000, "output_tokens": 100}, "usage_source": "estimated"}
    first = a_row(keys[0])
    rows = [
        first,
        a_row(keys[0], model="gpt-6", usage=None, usage_source="none", cost_nano=0),
        a_row(keys[0], model="gpt-6", usage=searches.as_dict()),
        a_row(keys[0], model="gpt-6", ending=ending, **lost),
        a_row(keys[1]),
    ]
    await write(insert_rows, *rows)
    # It was 200 and 100 tokens after all, and cost twice as much.
    usage = {"input_tokens": 200, "output_tokens": 100}
    adjustment = a_row(
        keys[0], at_ms=NOW_MS + 5, adjusts=first["call_id"], usage=usage, cost_nano=100_000
    )
    await write(insert_rows, adjustment)
    return {search.team_id: ("acme", "search"), ads.team_id: ("acme", "ads")}


async def asked(engine, book, teams, models, by=("team", "model"), **where):
    return await what_if(engine, book, models, by, Filters(where=where), UNTIL, teams)


@pytest.mark.parametrize("ending", ["lost", "open"])
async def test_each_group_at_each_model(engine, book, teams):
    found = await asked(engine, book, teams, [CHEAP])
    price = book.quote("openai", "cheap")
    assert found[Key(("search", "gpt-5"), CHEAP)] == Repriced(
        calls=1, cost_nano=200_000, priced=1, priced_nano=200_000,
        other_nano=cost(Usage(200, 100), price).nano,
    )  # fmt: skip
    assert found[Key(("search", "gpt-5"), CHEAP)].other_nano == 200 * 100 + 100 * 1000
    ads = found[Key(("ads", "gpt-5"), CHEAP)]  # which pays half
    assert ads.other_nano == (100 * 100 + 50 * 1000) // 2
    rest = found[Key(("search", "gpt-6"), CHEAP)]
    assert (rest.calls, rest.priced, rest.estimated) == (3, 1, 1)
    assert rest.not_priced == {"no usage": 1, "no price of web_search": 1}
    at_most = ceiling_cost(Usage(1000, 100), price)
    assert rest.other_nano == at_most


async def test_every_call_is_in_one_group_and_counted(engine, book, teams):
    for models in ([CHEAP], [CHEAP, SMALL, EMBED]):
        found = await asked(engine, book, teams, models, by=())
        assert len(found) == len(models)
        for sums in found.values():
            assert (sums.calls, sums.cost_nano) == (5, 500_000)
            assert sums.priced + sums.not_priced.total() == 5


async def test_what_does_not_fit_says_why(engine, book, teams):
    small = await asked(engine, book, teams, [SMALL], model="gpt-5")
    sums = [each.not_priced for each in small.values()]
    assert sums == [{"input beyond its window": 1}] * 2
    found = await asked(engine, book, teams, [EMBED], by=(), model="gpt-5")
    assert found[Key((), EMBED)].not_priced == {"other kind of model": 2}


@pytest.mark.parametrize("model", ["openai/nothing", "cheap", "", "nobody/cheap"])
async def test_a_model_without_a_price_is_refused(engine, book, teams, model):
    with pytest.raises(ReportError, match="no price for"):
        await asked(engine, book, teams, [CHEAP, model])
