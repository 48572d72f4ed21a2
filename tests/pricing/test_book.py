import hashlib
import json
from decimal import Decimal
from pathlib import Path

import pytest

from pricing.book import CACHED_QUOTES_MAX, FREE, Overlay, PriceBook
from pricing.calculator import cost
from pricing.errors import OverlayError, PricingError
from pricing.money import atto_from_usd
from pricing.price import Price
from pricing.table import PriceTable
from pricing.usage import Usage
from tests.factories import a_table, an_entry

MICRO = 10**12


@pytest.fixture
def table(tmp_path: Path) -> PriceTable:
    return a_table(
        tmp_path,
        {
            ("openai", "model-1"): an_entry(),
            ("openai", "model-2"): an_entry(input_cost_per_token="0.000002"),
            ("openai", "unknown-price"): an_entry(
                input_cost_per_token="0", output_cost_per_token="0"
            ),
            ("gemini", "model-1"): an_entry(input_cost_per_token="0.000003"),
        },
    )


def input_price(book: PriceBook, provider: str, *models: str) -> int | None:
    price = book.quote(provider, *models)
    return None if price is None else price.plain[0][1].input


def test_a_book_without_overlays_is_its_table(table: PriceTable) -> None:
    book = PriceBook(table)
    assert book.version == table.id
    assert input_price(book, "openai", "model-1") == MICRO
    assert input_price(book, "google", "models/model-1") == 3 * MICRO
    assert book.quote("openai", "unknown-price") is None
    assert book.quote("openai", "model-3") is None
    assert book.quote("openai") is None


def test_the_first_name_with_a_price_counts(table: PriceTable) -> None:
    book = PriceBook(table)
    assert input_price(book, "openai", "model-2-20260101", "model-2") == 2 * MICRO
    assert input_price(book, "openai", "", "model-1") == MICRO
    assert input_price(book, "openai", "model-1", "model-2") == MICRO


def test_quotes_are_kept_and_bounded(table: PriceTable) -> None:
    book = PriceBook(table)
    price = book.quote("openai", "model-1")
    assert book.quote("openai", "model-1") is price
    for number in range(CACHED_QUOTES_MAX):
        assert book.quote("openai", f"invented-{number}") is None
    assert len(book._quotes) <= CACHED_QUOTES_MAX
    assert input_price(book, "openai", "model-1") == MICRO


def test_a_discount_applies_to_the_models_its_globs_match(table: PriceTable) -> None:
    book = PriceBook(table, [Overlay(provider="openai", model="*-1", discount_percent="12.5")])
    assert input_price(book, "openai", "model-1") == 875_000_000_000
    assert input_price(book, "openai", "model-2") == 2 * MICRO
    assert input_price(book, "gemini", "model-1") == 3 * MICRO


@pytest.mark.parametrize("percent", ["33.333333333333", "0.07", "-5", "100", "1e1"])
def test_a_discount_is_exact(table: PriceTable, percent: str) -> None:
    book = PriceBook(table, [Overlay(discount_percent=percent)])
    expected = Decimal("0.000001") * (100 - Decimal(percent)) / 100
    assert input_price(book, "openai", "model-1") == atto_from_usd(expected)


def test_fixed_prices_and_maxima_replace_the_entrys(table: PriceTable) -> None:
    overlay = Overlay(
        model="model-1",
        discount_percent="50",
        prices={"input_cost_per_token": "0.0000007", "web_search_cost_per_query": "0.002"},
        max_input_tokens=5,
        max_output_tokens=6,
    )
    price = PriceBook(table, [overlay]).quote("openai", "model-1")
    assert price is not None
    assert (price.plain[0][1].input, price.plain[0][1].output) == (700_000_000_000, 5 * MICRO)
    assert price.unit_atto("web_search") == 2 * 10**15
    assert (price.max_input_tokens, price.max_output_tokens) == (5, 6)


def test_every_overlay_that_matches_applies_in_order(table: PriceTable) -> None:
    overlays = [
        Overlay(discount_percent="50"),
        Overlay(model="model-1", prices={"input_cost_per_token": "0.000004"}),
        Overlay(provider="openai", discount_percent="25"),
    ]
    book = PriceBook(table, overlays)
    assert input_price(book, "openai", "model-1") == 3 * MICRO
    assert input_price(book, "openai", "model-2") == 750_000_000_000


def test_an_overlay_with_prices_makes_an_entry(table: PriceTable) -> None:
    mine = {"input_cost_per_token": "0.0000001", "output_cost_per_token": "0.0000002"}
    book = PriceBook(table, [Overlay(provider="vllm", model="llama-*", prices=mine)])
    price = book.quote("vllm", "models/llama-7")
    assert price is not None
    assert price.key == "vllm/llama-7"
    assert cost(Usage(input_tokens=10, output_tokens=10), price).nano == 3_000
    assert book.quote("vllm", "other") is None
    assert book.quote("openai", "llama-7") is None


def test_only_an_overlay_can_say_that_zero_is_a_price(table: PriceTable) -> None:
    discounted = PriceBook(table, [Overlay(discount_percent="1")])
    assert discounted.quote("openai", "unknown-price") is None
    free = {"input_cost_per_token": "0", "output_cost_per_token": "0"}
    assert input_price(PriceBook(table, [Overlay(prices=free)]), "openai", "unknown-price") == 0


def test_unknown_models_at_a_declared_rate(table: PriceTable) -> None:
    overlay = Overlay(provider="acme", discount_percent="50", max_output_tokens=9)
    book = PriceBook(table, [overlay], unpriced_atto_per_token=7 * MICRO)
    price = book.quote("acme", "reported", "requested")
    assert price is not None
    assert price.unpriced
    assert (price.key, price.plain[0][1].input) == ("acme/*+0", 7 * MICRO)
    assert price.max_output_tokens == 9
    assert book.quote("acme", "reported", "requested") is price
    known = book.quote("openai", "reported", "model-1")
    assert known is not None
    assert not known.unpriced


def test_names_from_clients_make_no_keys(table: PriceTable) -> None:
    """Rows refer to prices by key, and each key is stored once."""
    overlay = Overlay(provider="acme", model="big-*", max_output_tokens=9)
    book = PriceBook(table, [overlay], unpriced_atto_per_token=1)
    keys = set()
    for provider in ("acme", FREE):
        for number in range(100):
            price = book.quote(provider, f"big-{number}" if number % 2 else f"m{number}")
            assert price is not None
            keys.add(price.key)
            assert price.model.endswith(str(number))
            again = book.by_key(price.key)
            assert again is not None
            assert (again.key, again.entry) == (price.key, price.entry)
    assert keys == {"acme/*", "acme/*+0", "free/*"}
    assert book.by_key("acme/*+7") is None
    assert PriceBook(table).by_key("acme/*") is None


HALF = Overlay(provider="openai", discount_percent="50", team="acme/*")
FIXED = Overlay(prices={"input_cost_per_token": "0.000009"}, team="*/search")


@pytest.mark.parametrize(
    ("team", "key", "usd_per_m"),
    [
        ("acme/search", "openai/model-1#1,2", 9),
        ("acme/ads", "openai/model-1#1", 1),
        ("other/search", "openai/model-1#2", 9),
        ("other/ads", "openai/model-1", 2),
    ],
)
def test_overlays_of_teams(table: PriceTable, team: str, key: str, usd_per_m: int) -> None:
    everybody = Overlay(prices={"input_cost_per_token": "0.000002"})
    book = PriceBook(table, [everybody, HALF, FIXED])
    own = book.for_team(*team.split("/"))
    price = own.quote("openai", "model-1")
    assert price is not None
    assert (price.key, price.plain[0][1].input) == (key, usd_per_m * MICRO)
    assert price.name == "openai/model-1"
    assert own.version == book.version
    assert book.for_team(*team.split("/")) is own
    again = PriceBook.from_stored(table, book.stored()).by_key(key)
    assert again is not None
    assert (again.key, again.entry) == (price.key, price.entry)


def test_without_overlays_of_teams_there_is_one_book(table: PriceTable) -> None:
    book = PriceBook(table, [Overlay(discount_percent="5")])
    assert book.for_team("acme", "search") is book
    only = PriceBook(table, [HALF])
    assert only.for_team("other", "x") is only
    assert only.quote("openai", "model-1") == only.by_key("openai/model-1")
    assert only.by_key("openai/model-1#4") is only.by_key("openai/model-1#,") is None


def test_models_declared_by_what_they_are_billed_by(table: PriceTable) -> None:
    book = PriceBook(table, [Overlay("acme", "draw", prices={"output_cost_per_image": "0.04"})])
    price = book.quote("acme", "draw")
    assert price is not None
    assert cost(Usage(units={"images": 2}), price).nano == 80_000_000
    tools = Overlay("acme", "chat", prices={"web_search_cost_per_query": "1"})
    assert PriceBook(table, [tools]).quote("acme", "chat") is None


def test_a_version_is_built_again_from_what_is_stored(table: PriceTable) -> None:
    overlays = [HALF, Overlay(max_output_tokens=5), FIXED]
    for rate in (None, 0, 7):
        book = PriceBook(table, overlays, unpriced_atto_per_token=rate)
        again = PriceBook.from_stored(table, json.loads(json.dumps(book.stored())))
        assert (again.version, again.stored()) == (book.version, book.stored())
    # The version of overlays for everybody is what it was before there were those of teams.
    plain = [["openai", "*", "50", {}, None, None]]
    content = json.dumps([plain, None], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    book = PriceBook(table, [Overlay("openai", discount_percent="50")])
    assert (book.version, book.stored()) == (f"{table.id}+{digest}", plain)


@pytest.mark.parametrize("stored", [[["*"] * 9], [["*", "*", "half"]], [5]])
def test_what_is_stored_may_be_nonsense(table: PriceTable, stored: list[object]) -> None:
    with pytest.raises(OverlayError):
        PriceBook.from_stored(table, stored)


def test_an_entry_of_the_book_prices_the_same_alone(table: PriceTable) -> None:
    price = PriceBook(table, [Overlay(discount_percent="7")]).quote("openai", "model-1")
    assert price is not None
    assert Price.compile(price.provider, price.model, price.entry).plain == price.plain


def test_a_version_is_the_content(table: PriceTable) -> None:
    def version(*overlays: Overlay, rate: int | None = None) -> str:
        return PriceBook(table, overlays, unpriced_atto_per_token=rate).version

    half, third = Overlay(discount_percent="50"), Overlay(discount_percent="33")
    versions = [version(), version(half), version(third), version(half, third)]
    versions += [version(third, half), version(rate=1), version(rate=2), version(half, rate=1)]
    assert len(set(versions)) == len(versions)
    assert all(name.startswith(table.id) for name in versions)
    assert version(half).removeprefix(f"{table.id}+").isalnum()
    assert version(Overlay(prices={"input_cost_per_token": "1", "output_cost_per_token": "2"})) == (
        version(Overlay(prices={"output_cost_per_token": "2", "input_cost_per_token": "1"}))
    )


@pytest.mark.parametrize(
    ("overlay", "reason"),
    [
        (Overlay(discount_percent="half"), r"overlay \*/\*: discount_percent 'half'"),
        (Overlay(discount_percent="101"), "discount_percent '101'"),
        (Overlay(discount_percent="nan"), "discount_percent 'nan'"),
        (Overlay(prices={"input_cost_per_tokn": "1"}), "unknown price 'input_cost_per_tokn'"),
        (Overlay(prices={"input_cost_per_token": "-1"}), "'-1' is not a price"),
        (Overlay(max_output_tokens=0), "a maximum of 0 tokens"),
    ],
)
def test_overlays_that_would_misprice_are_refused(
    table: PriceTable, overlay: Overlay, reason: str
) -> None:
    with pytest.raises(OverlayError, match=reason):
        PriceBook(table, [overlay])


def test_a_malformed_entry_is_refused_when_asked_for(tmp_path: Path) -> None:
    book = PriceBook(a_table(tmp_path, {("p", "m"): an_entry(max_input_tokens="x")}))
    with pytest.raises(PricingError, match="p/m: max_input_tokens"):
        book.quote("p", "m")


def test_every_model_of_a_free_provider_costs_nothing(table: PriceTable) -> None:
    book = PriceBook(table, unpriced_atto_per_token=10**12)
    price = book.quote(FREE, "llama3:8b", "asked")
    assert price is not None
    assert (price.key, price.unpriced) == ("free/*", False)
    assert cost(Usage(10**6, 10**6), price).nano == 0
    assert cost(Usage(10**6, 10**6), Price.compile("free", "asked", price.entry)).nano == 0


@pytest.mark.parametrize(
    ("provider", "model", "overlay"),
    [
        ("together", "org/llama", {"provider": "together"}),
        ("together", "org/llama", {"provider": "together_ai"}),
        ("together", "Org/Llama", {"model": "Org/*"}),
        ("huggingface", "org/llama:novita", {"provider": "huggingface"}),
        ("huggingface", "Org/Llama:novita", {"model": "Org/*"}),
        ("anthropic", "claude-20250929", {"model": "claude-2025*"}),
        ("anthropic", "models/claude", {"model": "models/*"}),
        ("bedrock", "us.nova-v1%3A0", {"model": "*%3A0"}),
        ("openai", "model-1", {"model": "model-*", "team": "acme/*"}),
    ],
)
def test_a_rows_key_leads_to_the_prices_it_was_charged(
    tmp_path: Path, provider: str, model: str, overlay: dict[str, str]
) -> None:
    """Whatever name of the provider or the model an overlay matched by."""
    names = (
        *(("together_ai", "org/llama"), ("huggingface_novita", "org/llama")),
        *(("bedrock", "us.nova-v1:0"), ("openai", "model-1")),
    )
    dated = {("anthropic", "claude"): an_entry(versions=["-dddddddd"])}
    table = a_table(tmp_path, {name: an_entry() for name in names} | dated)
    plain = PriceBook(table).quote(provider, model)
    book = PriceBook(table, [Overlay(discount_percent="50", **overlay)])
    price = book.for_team("acme", "search").quote(provider, model)
    assert plain is not None
    assert price is not None
    assert price.entry != plain.entry
    again = book.by_key(price.key)
    assert again is not None
    assert (again.key, again.entry) == (price.key, price.entry)
