import pytest

from pricing.book import PriceBook
from pricing.table import PriceTable, list_tables
from proxy.state import Prices, price_names, processing_region


@pytest.mark.parametrize(
    ("url", "geo"),
    [
        ("https://eu.api.openai.com", "eu"),
        ("https://us.api.openai.com/v1", "us"),
        ("https://api.openai.com", ""),
        ("https://eu.api.openai.com.example", ""),
        ("http://127.0.0.1:9", ""),
    ],
)
def test_the_region_of_a_data_residency_host(url: str, geo: str) -> None:
    assert processing_region(url) == geo


def test_names_in_the_price_table() -> None:
    assert price_names("", "a", "b") == ("a", "b")
    assert price_names("us-gov-west-1", "a", "b") == (
        *("us-gov-west-1/a", "a"),
        *("us-gov-west-1/b", "b"),
    )


def test_a_regions_own_price_comes_first() -> None:
    """Nova Lite: $0.06 per million input tokens, a fifth more in AWS GovCloud."""
    table = PriceTable.open(list_tables()[-1].path)
    prices = Prices("v", PriceBook(table))
    model = "amazon.nova-lite-v1:0"
    found = {
        region: prices.quote("bedrock", *price_names(region, model))
        for region in ("", "us-east-1", "us-gov-west-1")
    }
    assert found[""].key == found["us-east-1"].key == f"bedrock/{model}"
    assert found["us-gov-west-1"].key == f"bedrock/us-gov-west-1/{model}"
    plain, gov = (found[region].plain[0][1].input for region in ("", "us-gov-west-1"))
    assert (plain, gov) == (6 * 10**10, 72 * 10**9)
