"""The data of genai-prices: what it says, in our terms."""

import json
from decimal import Decimal
from typing import Any

import pytest

from pricing.calculator import cost
from pricing.errors import SourceError
from pricing.price import Price
from pricing.sources.genai_data import read
from pricing.sources.genai_prices import parse
from pricing.usage import Usage

DAY = "2026-11-21"


def model(model_id: str = "m", prices: object = None, **fields: object) -> dict[str, Any]:
    prices = {"input_mtok": 3, "output_mtok": 15} if prices is None else prices
    return {"id": model_id, "match": {"equals": model_id}, "prices": prices} | fields


def entries(*models: dict[str, Any], provider: str = "acme", day: str = DAY) -> dict[str, Any]:
    data = json.dumps([{"id": provider, "models": list(models)}]).encode()
    return {name: entry for (_, name), entry in parse(data, day).items()}


def one(prices: object, **fields: object) -> dict[str, Any]:
    (found,) = entries(model(prices=prices, **fields)).values()
    return dict(found)


# --- the shapes it comes in ------------------------------------------------------------------


def test_the_module_is_read_as_the_json_is() -> None:
    module = b"""
'''Do not edit.'''
from .types import *
__all__ = ('providers',)
providers: list[Provider] = [
    Provider(
        id='acme',
        models=[
            ModelInfo(
                id='m', context_window=1000, deprecated=True,
                match=ClauseOr(or_=[ClauseEquals(equals='m'), ClauseStartsWith(starts_with='n')]),
                prices=[
                    ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('2.5'))),
                    ConditionalPrice(
                        constraint=StartDateConstraint(start_date=datetime.date(2025, 1, 9)),
                        prices=ModelPrice(input_mtok=TieredPrices(
                            base=Decimal('3'), tiers=[Tier(start=200000, price=Decimal('6'))])),
                    ),
                    ConditionalPrice(
                        constraint=TimeOfDateConstraint(
                            start_time=datetime.time(0, 30, tzinfo=datetime.timezone.utc),
                            end_time=datetime.time(16, 30, tzinfo=datetime.timezone.utc)),
                        prices=ModelPrice(input_mtok=Decimal('3')),
                    ),
                ],
                price_variants=[PriceVariant(when={'processing': 'batch'}, prices=ModelPrice())],
            )
        ],
    )
]
"""
    constraint = {"start_time": "00:30", "end_time": "16:30"}
    tiers = {"base": Decimal(3), "tiers": [{"start": 200_000, "price": Decimal(6)}]}
    assert read(module) == [
        {
            "id": "acme",
            "models": [
                {
                    "id": "m",
                    "context_window": 1_000,
                    "deprecated": True,
                    "match": {"or": [{"equals": "m"}, {"starts_with": "n"}]},
                    "prices": [
                        {"prices": {"input_mtok": Decimal("2.5")}},
                        {
                            "constraint": {"start_date": "2025-01-09"},
                            "prices": {"input_mtok": tiers},
                        },
                        {"constraint": constraint, "prices": {"input_mtok": Decimal(3)}},
                    ],
                    "price_variants": [{"when": {"processing": "batch"}, "prices": {}}],
                }
            ],
        }
    ]


def test_json_keeps_decimals() -> None:
    assert read(b'[{"price": 0.1}]') == [{"price": Decimal("0.1")}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"providers = [", "neither JSON nor Python"),
        (b"[NaN]", "NaN is not a price"),
        (b"x = 1", "no list called providers"),
        (b"providers: list", "no list called providers"),
        (b"providers = 5", "expected a list of providers"),
        (b"[5]", "expected a list of providers"),
        (b"providers = [a + b]", "line 1: unexpected BinOp"),
        (b"providers = [open('/etc/passwd')]", "line 1: open with arguments that have no name"),
    ],
)
def test_anything_else_is_refused_and_never_executed(data: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        read(data)


# --- prices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "price", "ours", "usd"),
    [
        ("input_mtok", "2.5", "input_cost_per_token", "0.0000025"),
        ("cache_read_mtok", "0.3", "cache_read_input_token_cost", "0.0000003"),
        ("cache_write_mtok", "3.75", "cache_creation_input_token_cost", "0.00000375"),
        ("cache_write_1h_mtok", "6", "cache_creation_input_token_cost_above_1hr", "0.000006"),
        ("output_audio_mtok", "64", "output_cost_per_audio_token", "0.000064"),
        ("web_searches_kcount", "10", "web_search_cost_per_query", "0.01"),
        ("storage_searches_kcount", "2.5", "file_search_cost_per_call", "0.0025"),
        ("requests_kcount", "5", "input_cost_per_request", "0.005"),
        ("input_mchars", "15", "input_cost_per_character", "0.000015"),
        ("input_document_kpages", "4", "ocr_cost_per_page", "0.004"),
        ("audio_hours", "0.36", "input_cost_per_second", "0.0001"),
        ("audio_hours", "0.04", "input_cost_per_second", "0.000011111111111111"),
    ],
)
def test_prices_are_exact_and_per_unit(key: str, price: str, ours: str, usd: str) -> None:
    data = f'[{{"id": "p", "models": [{{"id": "m", "match": {{"equals": "m"}}, "prices": \
{{"{key}": {price}, "output_mtok": 1, "unheard_of": 1, "output_video_mtok": null}}}}]}}]'
    (found,) = parse(data.encode(), DAY).values()
    assert found[ours] == usd
    assert set(found) == {ours, "output_cost_per_token", "mode"}


def test_a_float_is_no_price() -> None:
    model = b"M(id='m', match=E(equals='m'), prices=Q(input_mtok=2.5))"
    with pytest.raises(TypeError, match="its exact price is lost"):
        parse(b"providers=[P(id='p', models=[" + model + b"])]", DAY)


def test_sizes_are_keys_of_the_whole_request() -> None:
    tiers = [{"start": 200_000, "price": 6}, {"start": 1_500, "price": 4}]
    found = one({"input_mtok": {"base": 3, "tiers": tiers}, "output_mtok": 15})
    assert found["input_cost_per_token_above_200k_tokens"] == "0.000006"
    assert found["input_cost_per_token_above_1500_tokens"] == "0.000004"
    price = Price.compile("p", "m", found)
    assert cost(Usage(200_000), price).nano == 200_000 * 4_000
    assert cost(Usage(200_001), price).nano == 200_001 * 6_000


@pytest.mark.parametrize(
    ("prices", "mode"),
    [
        ({"input_mtok": 1, "output_mtok": 1}, "chat"),
        ({"input_mtok": 1, "output_image_mtok": 1}, "image_generation"),
        ({"input_mtok": 1}, "embedding"),
        ({"audio_hours": 1}, "audio_transcription"),
        ({"input_mchars": 1}, "audio_speech"),
        ({"input_document_kpages": 1}, "ocr"),
        ({"rerank_searches_kcount": 1}, "rerank"),
    ],
)
def test_what_is_priced_tells_what_a_model_does(prices: dict[str, int], mode: str) -> None:
    assert one(prices)["mode"] == mode


def test_a_model_without_a_known_price_is_left_out() -> None:
    assert entries(model(prices={"social_searches_kcount": 5}), model("n")).keys() == {"n"}


def test_the_window_bounds_input_and_output() -> None:
    found = one({"input_mtok": 1, "output_mtok": 1}, context_window=128_000)
    price = Price.compile("p", "m", found)
    assert (price.max_input_tokens, price.max_output_tokens) == (128_000, 128_000)


def test_variants_are_tiers_and_speeds() -> None:
    since = {"constraint": {"start_date": "2026-01-01"}}
    later = {"constraint": {"start_date": "2027-01-01"}}
    found = one(
        {"input_mtok": 2, "output_mtok": 8},
        price_variants=[
            {"when": {"processing": "batch"}, "prices": {"input_mtok": 1}, **since},
            {"when": {"service_tier": "flex"}, "prices": {"output_mtok": 4}},
            {"when": {"service_tier": "priority"}, "prices": {"input_mtok": 9}, **later},
            {"when": {"service_tier": "default"}, "prices": {"input_mtok": 7}},
            {"when": {"speed": "fast"}, "prices": {"input_mtok": 5, "output_mtok": 20}},
        ],
    )
    assert found == {
        "mode": "chat",
        "input_cost_per_token": "0.000002",
        "output_cost_per_token": "0.000008",
        "input_cost_per_token_batches": "0.000001",
        "output_cost_per_token_flex": "0.000004",
        "provider_specific_entry": {"fast": "2.5"},
    }
    uneven = {"when": {"speed": "fast"}, "prices": {"input_mtok": 5, "output_mtok": 8}}
    prices = {"input_mtok": 2, "output_mtok": 8}
    assert "provider_specific_entry" not in one(prices, price_variants=[uneven])


HISTORY = [
    {"prices": {"input_mtok": 5, "output_mtok": 15}},
    {"constraint": {"start_date": "2024-08-06"}, "prices": {"input_mtok": 2.5, "output_mtok": 10}},
    {"constraint": {"start_date": "2027-01-01"}, "prices": {"input_mtok": 4, "output_mtok": 10}},
]


@pytest.mark.parametrize(
    ("day", "standing", "dated"),
    [
        ("2024-01-01", "5", ["from 2024-08-06", "from 2027-01-01"]),
        ("2026-11-21", "2.5", ["until 2024-08-06", "from 2027-01-01"]),
        ("2027-01-01", "4", ["until 2024-08-06", "until 2027-01-01"]),
    ],
)
def test_prices_by_day(day: str, standing: str, dated: list[str]) -> None:
    (found,) = entries(model(prices=HISTORY), day=day).values()
    assert Decimal(found["input_cost_per_token"]) == Decimal(standing) / 10**6
    parts = found["dated_pricing"]
    assert [" ".join(next(iter(part.items()))) for part in parts] == dated
    price = Price.compile("p", "m", found)
    assert cost(Usage(1_000_000), price, at_s=1_704_067_200).nano == 5 * 10**9  # 2024-01-01


def busy(start: str, end: str, usd: str = "0.3") -> dict[str, Any]:
    constraint = {"start_time": start, "end_time": end}
    return {"constraint": constraint, "prices": {"input_mtok": float(usd), "output_mtok": 1.2}}


def test_prices_by_hour() -> None:
    # DeepSeek: dearer from 01:00 to 04:00 and from 06:00 to 10:00 UTC.
    quiet = {"prices": {"input_mtok": 0.15, "output_mtok": 0.6}}
    found = one([quiet, busy("06:00", "10:00"), busy("01:00", "04:00")])
    assert found["input_cost_per_token"] == "0.0000003"
    price = Price.compile("p", "m", found)
    at = {h: cost(Usage(1_000_000), price, at_s=h * 3_600).nano // 10**6 for h in range(24)}
    assert {hour for hour, milli in at.items() if milli == 300} == {1, 2, 3, 6, 7, 8, 9}
    assert set(at.values()) == {150, 300}
    unclear = one([quiet, busy("06:00", "10:00"), busy("01:00", "04:00", "0.4")])
    assert "off_peak_pricing" not in unclear
    assert unclear["input_cost_per_token"] == "0.0000003"


# --- names -----------------------------------------------------------------------------------


def named(*models: tuple[str, dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    found = entries(*(model(name, match=match) for name, match in models))
    return {name: tuple(entry.get("versions", ())) for name, entry in found.items()}


def test_names_are_those_that_are_whole() -> None:
    match = {
        "or": [{"equals": "b"}, {"starts_with": "c"}, {"starts_with": "d-"}, {"contains": "e"}]
    }
    assert named(("A", match)).keys() == {"b", "c"}  # the id does not lead to it, nor does "d-"
    assert named(("x", {"and": [{"starts_with": "x"}, {"ends_with": "x"}]})) == {"x": ()}


def test_versions_are_those_that_lead_to_the_same_model() -> None:
    found = named(
        ("claude", {"starts_with": "claude"}),
        ("dated", {"or": [{"equals": "dated"}, {"regex": r"^dated-\d{8}$"}]}),
        ("exact", {"equals": "exact"}),
    )
    assert found == {
        "claude": ("-ddd", "-dddd", "-dddddddd", "@dddddddd", "-dddd-dd-dd"),
        "dated": ("-dddddddd",),
        "exact": (),
    }


def test_the_first_model_that_matches_has_the_name() -> None:
    family, member = ("gpt", {"starts_with": "gpt"}), ("gpt-mini", {"equals": "gpt-mini"})
    assert named(family, member).keys() == {"gpt"}
    assert named(member, family).keys() == {"gpt-mini", "gpt"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("google", "gemini"), ("aws", "bedrock"), ("x-ai", "xai"), ("voyageai", "voyage"), ("q", "q")],
)
def test_providers(theirs: str, ours: str) -> None:
    data = json.dumps([{"id": theirs, "models": [model()]}]).encode()
    assert list(parse(data, DAY)) == [(ours, "m")]
