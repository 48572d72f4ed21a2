"""Every recorded exchange with Bedrock and Vertex AI: usage, ends, costs and ceilings."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.calculator import cost
from pricing.ceiling import ceiling
from pricing.money import nano_from_usd
from pricing.table import PriceTable, list_tables
from pricing.usage import Usage
from tests.corpus import records
from tests.cuts import offsets
from tests.proxy.providers.cloud_records import APIS, exchanges

TOKENS = tuple(name for name in Usage.__dataclass_fields__ if name.endswith("_tokens"))
# Expected as reported by the cache's own list, which Gemini's prices do not tell apart.
NOT_COMPARED = {"cache_read_image_tokens", "cache_read_audio_tokens"}
PROVIDERS = {"bedrock": 86, "vertex": 36}  # and how many replies tell their usage, at least
PRICED_AS = {"bedrock": "bedrock", "vertex": "vertex_ai"}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(PriceTable.open(list_tables()[-1].path))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_usage_of_every_reply(provider: str) -> None:
    checked, wrong = 0, {}
    for exchange in exchanges(provider):
        record, expected = exchange.record, exchange.record["expected_usage"]
        passed, reading, ended = exchange.read(exchange.random_cuts())
        assert passed == exchange.body(), record["id"]
        usage = reading.usage
        assert (usage is None) is (expected is None), record["id"]
        if usage is None:
            continue
        found = {name: getattr(usage, name) for name in TOKENS if name not in NOT_COMPARED}
        found = {name: count for name, count in found.items() if count != expected.get(name, 0)}
        if found:
            wrong[record["id"]] = found
        assert reading.complete, record["id"]
        assert not reading.partial, record["id"]
        if provider == "bedrock":
            assert ended is record["stream"], record["id"]
        checked += 1
    assert not wrong
    assert checked >= PROVIDERS[provider]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_errors_have_no_usage(provider: str) -> None:
    for exchange in exchanges(provider):
        if exchange.record["status"] >= 400:
            assert exchange.read([])[1].usage is None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_costs_are_those_agreed_on_and_within_their_ceilings(
    provider: str, book: PriceBook
) -> None:
    checked = 0
    for exchange in exchanges(provider):
        record, agreed = exchange.record, exchange.record["expected_cost"] or {}
        if not agreed.get("agreed"):
            continue
        _, reading, _ = exchange.read([])
        price = book.quote(PRICED_AS[provider], reading.model, exchange.facts.model)
        assert price is not None, record["id"]
        assert reading.usage is not None
        found = cost(reading.usage, price).nano
        assert found == nano_from_usd(Decimal(agreed["value"])), record["id"]
        checked += 1
        if record.get("hand_edited"):  # the request is not the one the reply was made for
            continue
        bound = ceiling(exchange.facts.size, price)
        assert found <= bound.nano, record["id"]
        assert reading.usage.input_tokens <= bound.usage.input_tokens, record["id"]
        assert reading.usage.output_tokens <= bound.usage.output_tokens, record["id"]
    assert checked > 25


streams = st.deferred(
    lambda: st.sampled_from(
        [
            exchange
            for provider in PROVIDERS
            for exchange in exchanges(provider)
            if exchange.record["stream"] and exchange.record["status"] == 200
        ]
    )
)


@settings(deadline=None)
@given(st.data(), offsets(60))
def test_readings_do_not_depend_on_the_cuts(data: Any, at: list[int]) -> None:
    records(*APIS)  # skips where there are none
    exchange = data.draw(streams)
    whole, expected, ended = exchange.read([])
    passed, reading, cut_ended = exchange.read(at)
    assert (passed, cut_ended) == (whole, ended)
    reading.delivered_output_tokens = expected.delivered_output_tokens
    assert reading == expected


def test_a_stream_of_bedrock_cut_in_the_middle_gives_an_estimate() -> None:
    shares = []
    for exchange in exchanges("bedrock"):
        expected, record = exchange.record["expected_usage"], exchange.record
        if not record["stream"] or not expected or expected["output_tokens"] < 40:
            continue
        meter, body = exchange.meter(), exchange.body()
        meter.feed(body[: len(body) // 2])
        reading = meter.reading()
        assert not meter.ended
        assert not reading.complete
        assert reading.usage is None or reading.partial
        reported = reading.usage.output_tokens if reading.usage else 0
        shares.append(max(reported, reading.delivered_output_tokens) / expected["output_tokens"])
    shares.sort()
    assert len(shares) > 15
    assert 0.2 < shares[len(shares) // 2] < 0.9
