"""Batches: bounds from sums, and used counts at the rates of their own context sizes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.batch import (
    BatchSize,
    BatchSums,
    batch_ceiling,
    in_one_band,
    is_batch_priced,
    merged,
    size_step,
)
from pricing.calculator import ceiling, cost
from pricing.errors import MissingMaximum, MissingPrice
from pricing.price import Price
from pricing.table import TABLES_DIR
from pricing.usage import RequestSize, Usage
from tests.factories import a_price

BATCHED = a_price(
    input_cost_per_token_batches="0.0000005",
    output_cost_per_token_batches="0.000005",
    input_cost_per_token_above_20k_tokens="0.000004",
    input_cost_per_token_above_20k_tokens_batches="0.000002",
)
sizes = st.builds(
    RequestSize,
    body_bytes=st.integers(1, 90_000),
    output_limit=st.none() | st.integers(0, 8_000),
    choices=st.integers(1, 3),
    inline_images=st.integers(0, 3),
    windowed=st.booleans(),
    tool_windows=st.integers(-1, 3),
)


def size_of(*requests: RequestSize) -> BatchSize:
    size = BatchSize()
    for request in requests:
        size.add(request)
    return size


@given(st.lists(sizes, min_size=1, max_size=5))
def test_no_batch_costs_more_than_its_ceiling(requests: list[RequestSize]) -> None:
    """Each request may use all that its own ceiling allows, whatever rate applies."""
    bound = batch_ceiling([(size_of(*requests), BATCHED)], 4)
    sums = BatchSums()
    for request in requests:
        most = ceiling(request, BATCHED).usage
        sums.add("model-1", Usage(most.input_tokens, most.output_tokens))
    groups = [(BATCHED, Usage.from_dict(usage)) for _, usage in sums.groups()]
    price, usage = merged(groups)
    assert cost(usage, price).nano <= bound.nano
    assert usage.total_tokens <= bound.tokens


def test_a_batch_is_held_at_batch_prices() -> None:
    size = size_of(RequestSize(952, output_limit=100), RequestSize(52, output_limit=100, choices=2))
    bound = batch_ceiling([(size, BATCHED)], 4)
    assert bound.nano == (3000 + 2100) * 500 + 300 * 5_000
    assert bound.tokens == 5100 + 300
    assert bound.usage.as_dict()["service_tier"] == "batch"


def test_the_largest_request_decides_the_context_size() -> None:
    many = size_of(*[RequestSize(1000, output_limit=0)] * 100)
    assert batch_ceiling([(many, BATCHED)], 4).nano == 100 * 3048 * 500
    many.add(RequestSize(20_000, output_limit=0))
    assert batch_ceiling([(many, BATCHED)], 4).nano == (100 * 3048 + 22_048) * 2_000


def test_no_limit_is_the_models_maximum_and_content_elsewhere_the_window() -> None:
    size = size_of(RequestSize(10, windowed=True), RequestSize(10, tool_windows=-1))
    usage = size.usage(BATCHED, 4)
    assert (usage.input_tokens, usage.output_tokens) == (500_000, 16_000)
    assert usage.largest_input_tokens == 400_000


def test_a_batch_of_two_models_is_the_sum_of_both() -> None:
    other = Price.compile("openai", "model-2", dict(BATCHED.entry))
    size = size_of(RequestSize(1000, output_limit=10))
    one = batch_ceiling([(size, BATCHED)], 4)
    both = batch_ceiling([(size, BATCHED), (size, other)], 4)
    assert (both.nano, both.tokens) == (2 * one.nano, 2 * one.tokens)
    assert [model for model, _ in both.usage.passes] == ["", "model-2"]


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"max_output_tokens": None}, MissingMaximum),
        ({"max_input_tokens": None}, MissingMaximum),
        (
            {
                "mode": "image_generation",
                "input_cost_per_token": None,
                "output_cost_per_token": None,
                "output_cost_per_image": "0.04",
            },
            MissingPrice,
        ),
    ],
)
def test_what_has_no_bound_is_refused(entry: dict[str, object], error: type[Exception]) -> None:
    values = {key: value for key, value in entry.items() if value is not None}
    whole = {key: value for key, value in a_price().entry.items() if key not in entry} | values
    price = Price.compile("openai", "m", whole)
    with pytest.raises(error):
        batch_ceiling([(size_of(RequestSize(10, windowed=True)), price)], 4)


def test_sums_keep_context_sizes_and_terms_apart() -> None:
    sums = BatchSums()
    for tokens in (1, 16_000, 19_999, 20_000, 20_001):
        sums.add("m", Usage(tokens, 1))
    sums.add("m", Usage(5, 5, inference_geo="us"))
    sums.add("other", Usage(2, 3, passes=(("advisor", Usage(7, 7)),), units={"web_search": 2}))
    found = [(model, Usage.from_dict(usage)) for model, usage in sums.groups()]
    assert [(model, u.input_tokens, u.inference_geo) for model, u in found] == [
        ("advisor", 7, ""), ("m", 16_001, ""), ("m", 19_999, ""), ("m", 20_000, ""),
        ("m", 20_001, ""), ("m", 5, "us"), ("other", 2, ""),
    ]  # fmt: skip
    assert found[-1][1].units == {"web_search": 2}
    assert sums.requests == 7


def test_merged_sums_are_billed_as_single_requests_are() -> None:
    usages = [Usage(tokens, 10, service_tier="batch") for tokens in (5, 20_000, 20_001, 30_000)]
    sums = BatchSums()
    for usage in usages:
        sums.add("m", usage)
    groups = [(BATCHED, Usage.from_dict(usage)) for _, usage in sums.groups()]
    price, usage = merged(groups)
    assert cost(usage, price).nano == sum(cost(each, BATCHED).nano for each in usages)
    assert [model for model, _ in usage.passes] == ["", ""]


def test_what_is_batch_priced() -> None:
    assert is_batch_priced(BATCHED)
    assert not is_batch_priced(a_price())
    assert is_batch_priced(Price.free("free", "m"))
    assert is_batch_priced(Price.flat("openai", "m", 10**12))


def test_one_band() -> None:
    assert in_one_band(BATCHED, Usage(10**6, largest_input_tokens=20_000, service_tier="batch"))
    assert not in_one_band(BATCHED, Usage(1, largest_input_tokens=20_001, service_tier="batch"))


@pytest.mark.parametrize("path", sorted(TABLES_DIR.glob("*.jsonl")), ids=lambda path: path.name)
def test_no_price_is_finer_than_the_steps(path) -> None:
    """Every context size that a table distinguishes begins a step of its own."""
    found = set()
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if isinstance(row, list) and len(row) == 3 and isinstance(row[2], dict):
            price = Price.compile(*row)
            found |= {over for over, _ in price.plain if over > 0}
    assert found
    assert [over for over in found if size_step(over) == size_step(over + 1)] == []
