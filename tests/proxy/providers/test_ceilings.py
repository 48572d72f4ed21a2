"""Facts read off recorded requests bound what the recorded replies cost."""

import pytest

from pricing.book import PriceBook
from pricing.calculator import cost
from pricing.ceiling import ceiling
from pricing.errors import MissingMaximum
from pricing.table import PriceTable, list_tables
from tests.proxy.providers.test_corpus import a_meter, metered, random_pieces, relay

PRICED_AS = {"vertex": "vertex_ai", "together": "together_ai", "voyageai": "voyage"}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(PriceTable.open(list_tables()[-1].path))


def test_no_recorded_call_cost_more_than_its_ceiling(book: PriceBook) -> None:
    checked = 0
    for record, facts, wire in metered():
        _, reading = relay(a_meter(record, facts, wire), random_pieces(record))
        provider = PRICED_AS.get(record["provider"], record["provider"])
        price = book.quote(provider, reading.model, facts.model)
        if reading.usage is None or price is None:
            continue
        try:
            bound = ceiling(facts.size, price)
        except MissingMaximum:
            continue
        assert reading.usage.input_tokens <= bound.usage.input_tokens, record["id"]
        assert reading.usage.output_tokens <= bound.usage.output_tokens, record["id"]
        assert cost(reading.usage, price).nano <= bound.nano, record["id"]
        checked += 1
    assert checked > 350
