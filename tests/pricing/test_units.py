"""Prices outside tokens: each rule as arithmetic, with its source."""

import pytest

from pricing.calculator import Cost, cost
from pricing.ceiling import ceiling, ceiling_cost
from pricing.errors import MissingPrice, PricingError
from pricing.price import UNITS_KEPT_MAX, Price
from pricing.units import UNITS, dearest_unit_atto, prices_measures, unit_atto
from pricing.usage import RequestSize, Usage
from tests.factories import a_price

NANO = 10**9  # atto-USD of a nano-USD


def by_units(provider: str = "openai", mode: str = "image_generation", **prices: str) -> Price:
    return Price.compile(provider, "m", {"mode": mode, **prices})


def nano(price: Price, tier: str = "", **units: int) -> int:
    return cost(Usage(units=units, service_tier=tier), price).nano


def named(price: Price, name: str, count: int = 1) -> int:
    return cost(Usage(units={name: count}), price).nano


# --- what each unit costs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "key", "usd", "count", "expected"),
    [
        # OpenAI: a file search is $2.50 per 1,000 calls, a container session $0.03.
        ("file_search", "file_search_cost_per_call", "0.0025", 4, 10_000_000),
        ("code_interpreter", "code_interpreter_cost_per_session", "0.03", 2, 60_000_000),
        # Google: grounding with Maps is $25 per 1,000 grounded prompts.
        ("google_maps", "google_maps_grounding_cost_per_query", "0.025", 1, 25_000_000),
        # Perplexity: citations of deep research are $2 per million tokens.
        ("citation_tokens", "citation_cost_per_token", "0.000002", 1_500, 3_000_000),
        # Whisper: $0.006 a minute.
        ("seconds", "input_cost_per_second", "0.0001", 90, 9_000_000),
        ("milliseconds", "input_cost_per_second", "0.0001", 8_470, 847_000),
        # TTS-1: $15 per million characters.
        ("characters", "input_cost_per_character", "0.000015", 2_000, 30_000_000),
        ("output_characters", "output_cost_per_character", "0.000001", 3, 3_000),
        # Cohere: rerank is $2 per 1,000 searches.
        ("search_units", "input_cost_per_query", "0.002", 3, 6_000_000),
        # Mistral OCR: $4 per 1,000 pages, $5 annotated.
        ("pages", "ocr_cost_per_page", "0.004", 12, 48_000_000),
        ("annotated_pages", "annotation_cost_per_page", "0.005", 2, 10_000_000),
        ("annotated_pages", "ocr_cost_per_page", "0.004", 2, 8_000_000),
        ("credits", "ocr_cost_per_credit", "0.01", 1, 10_000_000),
        # FLUX: $0.05 per megapixel.
        ("pixels", "input_cost_per_pixel", "0.00000005", 1_024 * 1_024, 52_428_800),
        ("images", "output_cost_per_image", "0.02", 3, 60_000_000),
        # Cohere Embed: $0.0001 an image. Veo: $0.40 a second. Grok voice: $0.004 a message.
        ("input_images", "input_cost_per_image", "0.0001", 5, 500_000),
        ("video_seconds", "input_cost_per_video_per_second", "0.0007", 10, 7_000_000),
        ("output_seconds", "output_cost_per_second", "0.4", 8, 3_200_000_000),
        ("output_seconds", "output_cost_per_video_per_second", "0.1", 8, 800_000_000),
        ("text_messages", "input_cost_per_text_message", "0.004", 2, 8_000_000),
    ],
)
def test_units_cost_their_count_at_their_price(
    unit: str, key: str, usd: str, count: int, expected: int
) -> None:
    price = by_units(**{key: usd})
    assert cost(Usage(units={unit: count}), price) == Cost(
        expected, [(unit, count, expected * NANO // count)]
    )
    assert unit in UNITS


def test_a_zero_under_one_key_hides_no_price_under_another() -> None:
    # Soniox: no price per second of input, $0.0000277778 per second of output.
    prices = {"input_cost_per_second": "0", "output_cost_per_second": "0.00002"}
    assert nano(by_units(**prices), seconds=10) == 200_000
    assert unit_atto("p", {"input_cost_per_second": "0"}, "seconds") == 0


def test_a_unit_nobody_prices_costs_nothing() -> None:
    assert nano(a_price(), web_fetch=3, file_search=2) == 0
    assert unit_atto("openai", {}, "web_fetch") is None


def test_batches_have_prices_of_their_own() -> None:
    price = by_units(ocr_cost_per_page="0.004", ocr_cost_per_page_batches="0.002")
    assert nano(price, pages=10) == 40_000_000
    assert nano(price, "batch", pages=10) == 20_000_000
    assert nano(price, "flex", pages=10) == 40_000_000


# --- variants --------------------------------------------------------------------------------

# dall-e-3: an image of 1024x1024 is $0.04, in HD $0.08, of 1024x1792 in HD $0.12.
DALL_E = {
    "output_cost_per_image@standard/1024x1024": "0.04",
    "output_cost_per_image@hd/1024x1024": "0.08",
    "output_cost_per_image@hd/1024x1792": "0.12",
}


def test_a_variant_has_its_own_price() -> None:
    price = by_units(**DALL_E)
    assert named(price, "images@standard/1024x1024", 2) == 80_000_000
    assert named(price, "images@hd/1024x1792") == 120_000_000


def test_an_unknown_variant_has_the_plain_price_else_the_dearest() -> None:
    assert named(by_units(**DALL_E), "images@vivid/2x2") == 120_000_000
    assert named(by_units(**DALL_E), "images") == 120_000_000
    plain = by_units(**DALL_E, output_cost_per_image="0.05")
    assert named(plain, "images@vivid/2x2") == named(plain, "images") == 50_000_000


def test_videos_by_resolution() -> None:
    # Veo 3.1 fast: $0.10 a second, $0.30 in 4k.
    prices = {"output_cost_per_second": "0.1", "output_cost_per_second@4k": "0.3"}
    price = by_units(mode="video_generation", **prices)
    assert named(price, "output_seconds@4k", 8) == 2_400_000_000
    assert named(price, "output_seconds@720p", 8) == 800_000_000


SIZES = {
    "search_context_size_low": "0.005",
    "search_context_size_medium": "0.008",
    "search_context_size_high": "0.012",
}


@pytest.mark.parametrize(
    ("name", "elsewhere", "perplexity"),
    [
        ("web_search", 8, 5),  # the default: medium, low at Perplexity
        ("web_search@low", 5, 5),
        ("web_search@medium", 8, 8),
        ("web_search@high", 12, 12),
        ("web_search@vast", 8, 5),
    ],
)
def test_searches_by_context_size(name: str, elsewhere: int, perplexity: int) -> None:
    price = a_price(search_context_cost_per_query=SIZES)
    assert named(price, name) == elsewhere * 1_000_000
    price = a_price("perplexity", search_context_cost_per_query=SIZES)
    assert named(price, name) == perplexity * 1_000_000


def test_an_overlays_price_of_a_search_is_that_of_every_size() -> None:
    price = a_price(search_context_cost_per_query=SIZES, web_search_cost_per_query="0.001")
    assert named(price, "web_search@high") == 1_000_000
    assert price.dearest_unit("web_search") == 10**15


# --- what is billed --------------------------------------------------------------------------


def test_groq_bills_ten_seconds_at_least() -> None:
    # whisper-large-v3-turbo: $0.04 an hour; 10 s at the least per request (Groq's price page).
    price = by_units("groq", "audio_transcription", input_cost_per_second="0.00001111")
    assert nano(price, seconds=3) == nano(price, milliseconds=3_000) == 111_100
    assert nano(price, seconds=30) == 333_300
    assert nano(price, seconds=0) == 0
    assert nano(by_units(input_cost_per_second="0.00001111"), seconds=3) == 33_330


def test_a_fee_per_request_comes_on_top_once() -> None:
    # pplx-70b-online: $5 per 1,000 requests and $2.80 per million tokens of output.
    price = a_price(
        input_cost_per_token="0",
        output_cost_per_token="0.0000028",
        input_cost_per_request="0.005",
    )
    usage = Usage(900, 100, passes=(("", Usage(0, 100)),))
    assert cost(usage, price).nano == 2 * 280_000 + 5_000_000
    assert ("request", 1, 5 * 10**15) in cost(usage, price).items
    bound = ceiling(RequestSize(900, output_limit=100), price)
    assert bound.nano == 280_000 + 5_000_000


def test_tools_are_billed_on_top_of_tokens() -> None:
    price = a_price(file_search_cost_per_call="0.0025")
    assert cost(Usage(1_000, units={"file_search": 2}), price).nano == 1_000_000 + 5_000_000


def test_a_measure_is_not_billed_besides_the_tokens_it_measures() -> None:
    # gpt-4o-transcribe: $2.50 per million tokens, also given as $0.006 a minute.
    price = a_price(mode="audio_transcription", input_cost_per_second="0.0001")
    assert cost(Usage(1_000, 0, units={"seconds": 60}), price).nano == 1_000_000
    assert nano(price, seconds=60) == 6_000_000  # a reply without tokens
    image = a_price(mode="image_generation", output_cost_per_image="0.04")
    assert cost(Usage(0, 100, units={"images": 1}), image).nano == 1_000_000
    assert nano(image, images=1) == 40_000_000


def test_embedding_models_bill_media_besides_the_tokens_of_text() -> None:
    # embed-english-v3.0: $0.10 per million tokens, $0.0001 an image.
    price = a_price(
        "cohere", mode="embedding", input_cost_per_image="0.0001", input_cost_per_character="1"
    )
    usage = Usage(1_000, units={"input_images": 2, "characters": 3})
    assert cost(usage, price).nano == 1_000_000 + 200_000


def test_where_tokens_have_no_price_units_are_billed_whatever_else_is_reported() -> None:
    price = by_units("cohere", "rerank", input_cost_per_token="0", input_cost_per_query="0.002")
    assert price.by_units
    assert cost(Usage(500, units={"search_units": 1}), price).nano == 2_000_000


# --- bounds ----------------------------------------------------------------------------------


def test_a_bound_without_a_variant_holds_the_dearest_one() -> None:
    price = by_units(**DALL_E)
    assert ceiling(RequestSize(100, units={"images": 2}), price).nano == 240_000_000
    size = RequestSize(100, units={"images@standard/1024x1024": 2})
    bound = ceiling(size, price)
    assert (bound.nano, bound.tokens) == (80_000_000, 0)
    assert bound.usage.units == size.units
    assert ceiling_cost(Usage.from_dict(bound.usage.as_dict()), price) == bound.nano


def test_a_bound_on_searches_holds_the_dearest_context() -> None:
    price = a_price("perplexity", search_context_cost_per_query=SIZES)
    assert price.dearest_unit("web_search") == 12 * 10**15
    assert price.dearest_unit("web_search@low") == 5 * 10**15


def test_a_batch_price_may_be_the_dearer_one() -> None:
    price = by_units(ocr_cost_per_page="0.004", ocr_cost_per_page_batches="0.01")
    assert price.dearest_unit("pages", "batch") == 10**16
    assert price.dearest_unit("pages") == 4 * 10**15


def test_citations_are_held_with_the_input() -> None:
    price = a_price("perplexity", citation_cost_per_token="0.000002")
    bound = ceiling(RequestSize(1_000, output_limit=0), price)
    assert bound.nano == 3_048 * 3_000
    assert cost(Usage(3_048, units={"citation_tokens": 3_048}), price).nano == bound.nano


def test_images_bound_their_tokens() -> None:
    # gpt-image-1: at most 6,540 tokens an image, $40 per million.
    price = a_price(
        mode="image_generation",
        max_output_tokens=None,
        output_cost_per_image_token="0.00004",
        max_tokens_per_output_image=6_540,
    )
    bound = ceiling(RequestSize(100, units={"images@high/1024x1024": 2}), price)
    assert bound.usage.output_tokens == 2 * 6_540
    assert bound.nano == 2_148 * 1_000 + 2 * 6_540 * 40_000


def test_no_bound_where_the_entry_prices_other_things() -> None:
    price = by_units(input_cost_per_second="0.0001")
    with pytest.raises(MissingPrice, match="openai/m has no price of tokens"):
        ceiling(RequestSize(100), price)
    with pytest.raises(MissingPrice, match="price of images"):
        ceiling(RequestSize(100, units={"images": 1}), price)
    assert ceiling(RequestSize(100, units={"seconds": 60}), price).nano == 6_000_000


# --- entries ---------------------------------------------------------------------------------


def test_rates_of_names_from_clients_are_bounded() -> None:
    price = by_units(**DALL_E)
    for number in range(UNITS_KEPT_MAX + 10):
        assert named(price, f"images@{number}") == 120_000_000
        assert price.dearest_unit(f"images@{number}") == 120 * 10**15
    assert len(price._units) <= UNITS_KEPT_MAX
    assert len(price._dearest_units) <= UNITS_KEPT_MAX


def test_an_entry_without_a_price_above_zero_measures_nothing() -> None:
    assert not prices_measures({"input_cost_per_second": "0", "file_search_cost_per_call": "1"})
    assert prices_measures({"output_cost_per_image@a": "0.1"})
    assert dearest_unit_atto("p", {}, "images", ("",)) == 0


def test_a_price_that_is_none_is_refused() -> None:
    with pytest.raises(PricingError, match="output_cost_per_image"):
        named(by_units(output_cost_per_image="dear", ocr_cost_per_page="1"), "images")
