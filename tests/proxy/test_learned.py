"""What soft budgets hold: twice the most that calls to the model were seen to use."""

import statistics
from collections import defaultdict
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.calculator import cost
from pricing.ceiling import Ceiling, ceiling
from pricing.errors import MissingMaximum
from pricing.price import Price
from pricing.table import PriceTable, list_tables
from pricing.usage import RequestSize, Usage
from proxy.learned import MODELS_MAX, REPLIES_KEPT, REPLIES_MIN, Learned
from tests.factories import a_price
from tests.proxy.providers.test_ceilings import PRICED_AS
from tests.proxy.providers.test_corpus import a_meter, metered, relay

PRICE = a_price()
TEXT = RequestSize(body_bytes=500)
USAGE = Usage(input_tokens=250, output_tokens=80)  # a quarter of a token per byte of 1,000


def held(learned: Learned, size: RequestSize = TEXT, price: Price = PRICE) -> Ceiling | None:
    return learned.hold(size, price, ceiling(size, price))


def counts(learned: Learned, size: RequestSize = TEXT) -> tuple[int, int]:
    bound = held(learned, size)
    assert bound is not None
    return bound.usage.input_tokens, bound.usage.output_tokens


def taught(*usages: Usage, size: RequestSize = TEXT, key: str = PRICE.key) -> Learned:
    learned = Learned()
    for usage in usages or [USAGE] * REPLIES_MIN:
        learned.observe(key, size, usage)
    return learned


def test_nothing_is_said_of_a_model_before_enough_replies() -> None:
    learned = taught(*[USAGE] * (REPLIES_MIN - 1))
    assert held(learned) is None
    learned.observe("openai/another", TEXT, USAGE)
    assert held(learned) is None
    learned.observe(PRICE.key, TEXT, USAGE)
    assert held(learned) is not None


def test_twice_the_most_that_was_seen() -> None:
    learned = taught(*[USAGE] * REPLIES_MIN, Usage(input_tokens=100, output_tokens=300), USAGE)
    assert counts(learned) == (500, 600)
    bound = held(learned)
    assert bound is not None
    assert (bound.nano, bound.tokens) == (500 * 1_000 + 600 * 10_000, 1_100)


def test_input_follows_the_size_of_the_body() -> None:
    assert counts(taught(), RequestSize(body_bytes=9_500)) == (5_000, 160)


def test_output_follows_the_number_of_choices() -> None:
    four = RequestSize(body_bytes=500, choices=4)
    assert counts(taught(*[USAGE] * 30, size=four)) == (500, 40)
    assert counts(taught(), four) == (500, 640)


def test_the_requests_own_limit_bounds_the_output() -> None:
    assert counts(taught(), RequestSize(body_bytes=500, output_limit=50)) == (500, 50)


def test_replies_cut_by_their_limit_do_not_count() -> None:
    ping = RequestSize(body_bytes=500, output_limit=1)
    learned = taught(*[Usage(input_tokens=250, output_tokens=1)] * 100, size=ping)
    assert held(learned) is None
    for _ in range(REPLIES_MIN):
        learned.observe(PRICE.key, RequestSize(body_bytes=500, output_limit=81), USAGE)
    assert counts(learned) == (500, 160)


def test_old_replies_are_forgotten() -> None:
    learned = taught(Usage(input_tokens=4_000, output_tokens=4_000), *[USAGE] * REPLIES_KEPT)
    assert counts(learned) == (500, 160)
    learned = taught(
        *[USAGE] * (REPLIES_KEPT // 2), Usage(4_000, 4_000), *[USAGE] * (REPLIES_KEPT // 2)
    )
    assert counts(learned) == (2_548, 8_000)  # the ceiling


@pytest.mark.parametrize(
    "size",
    [
        RequestSize(body_bytes=500, windowed=True),
        RequestSize(body_bytes=500, inline_images=1),
        RequestSize(body_bytes=500, tool_windows=2),
        RequestSize(body_bytes=500, tool_windows=-1),
        RequestSize(body_bytes=500, web_searches=1),
    ],
)
def test_only_inline_text_is_learned_and_held(size: RequestSize) -> None:
    assert held(taught(), size) is None
    assert held(taught(*[USAGE] * 30, size=size)) is None


def test_embeddings() -> None:
    price = a_price(mode="embedding", output_cost_per_token="0", max_output_tokens=None)
    size = RequestSize(body_bytes=500, inputs=3, generates=False)
    learned = taught(*[Usage(input_tokens=250)] * REPLIES_MIN, size=size)
    bound = held(learned, size, price)
    assert bound is not None
    assert (bound.usage.input_tokens, bound.usage.output_tokens) == (500, 0)


def test_the_tier_asked_for_is_held() -> None:
    dear = {
        "input_cost_per_token_priority": "0.000002",
        "output_cost_per_token_priority": "0.00002",
    }
    price = a_price("gemini", **dear)
    plain, fast = TEXT, RequestSize(body_bytes=500, service_tier="priority")
    learned = taught(key=price.key)
    nanos = [bound.nano for size in (plain, fast) if (bound := held(learned, size, price))]
    assert nanos == [500 * 1_000 + 160 * 10_000, 500 * 2_000 + 160 * 20_000]


def test_memory_is_bounded() -> None:
    learned = taught()
    for number in range(MODELS_MAX - 1):
        learned.observe(f"openai/model-{number}", TEXT, USAGE)
    learned.observe(PRICE.key, TEXT, USAGE)
    learned.observe("openai/one-more", TEXT, USAGE)
    assert held(learned) is not None  # what was called lately is kept
    for number in range(MODELS_MAX):
        learned.observe(f"openai/other-{number}", TEXT, USAGE)
    assert held(learned) is None


sizes = st.builds(
    RequestSize,
    body_bytes=st.integers(0, 10**6),
    output_limit=st.none() | st.integers(-1, 10**5),
    choices=st.integers(0, 4),
    inputs=st.integers(0, 3),
)
usages = st.builds(Usage, input_tokens=st.integers(0, 10**6), output_tokens=st.integers(0, 10**5))


@given(st.lists(st.tuples(sizes, usages), min_size=1, max_size=5), sizes)
def test_never_above_the_ceiling(seen: list[tuple[RequestSize, Usage]], size: RequestSize) -> None:
    learned = Learned(replies_min=0)
    for other, usage in seen:
        learned.observe(PRICE.key, other, usage)
    bound, strict = held(learned, size), ceiling(size, PRICE)
    assert bound is not None
    assert bound.nano <= strict.nano
    assert bound.tokens <= strict.tokens
    again, usage = seen[-1]
    repeated = held(learned, again)
    assert repeated is not None
    within = ceiling(again, PRICE).usage
    assert repeated.usage.input_tokens >= min(usage.input_tokens, within.input_tokens)
    assert repeated.usage.output_tokens >= min(usage.output_tokens, within.output_tokens)


# --- recorded traffic -----------------------------------------------------------------------


class Recorded(NamedTuple):
    id: str
    size: RequestSize
    usage: Usage
    price: Price
    bound: Ceiling


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[Recorded]]:
    """Calls with reported usage and a price, by price key: of the formats most recordings are in,
    since a model needs several to be judged by."""
    book = PriceBook(PriceTable.open(list_tables()[-1].path))
    found = defaultdict(list)
    for record, facts, wire in metered():
        if not record["api"].startswith(("openai_", "anthropic_", "gemini_")):
            continue
        _, reading = relay(a_meter(record, facts, wire), [record["response_body"].encode()])
        provider = PRICED_AS.get(record["provider"], record["provider"])
        price = book.quote(provider, facts.model, reading.model)
        if reading.usage is None or price is None:
            continue
        try:
            bound = ceiling(facts.size, price)
        except MissingMaximum:
            continue
        found[price.key].append(Recorded(record["id"], facts.size, reading.usage, price, bound))
    return found


@pytest.mark.parametrize(("replies_min", "models"), [(REPLIES_MIN, 1), (12, 6)])
def test_recorded_calls_rarely_cost_more_and_hold_much_less(
    recorded: dict[str, list[Recorded]], replies_min: int, models: int
) -> None:
    """Each call judged by what all others to its model taught. Recordings of one model are few:
    fewer replies than in use make the rule looser, not tighter."""
    judged, dearer, shares = set(), [], []
    for key, calls in recorded.items():
        for call in calls:
            learned = Learned(replies_min)
            for other in calls:
                if other is not call:
                    learned.observe(key, other.size, other.usage)
            soft = learned.hold(call.size, call.price, call.bound)
            true = cost(call.usage, call.price).nano
            if soft is None or not true:
                continue
            judged.add(key)
            shares.append(call.bound.nano / soft.nano)
            if true > soft.nano:
                dearer.append(call.id)
    assert len(judged) >= models
    assert len(dearer) < len(shares) * 0.01, dearer
    assert statistics.median(shares) > 5
