"""One table of two sources: whose word counts, what is lent, what is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.dated import DATED
from pricing.diff import diff_tables
from pricing.rates import CACHE_READ, CACHE_READ_OLD, CACHE_WRITE, INPUT, OUTPUT
from pricing.sources.files import Source
from pricing.sources.load import load_installed
from pricing.sources.merge import PROVENANCE, Disagreement, disagreements, merge, table_id
from pricing.table import PriceTable, known_tables
from tests.factories import a_table

DAY = "2026-11-21"
M = ("openai", "m")


def entry(price_in: str = "1", price_out: str = "2", **fields: object) -> dict[str, Any]:
    return {"mode": "chat", INPUT: price_in, OUTPUT: price_out, **fields}


def source(name: str, *entries: dict[str, Any], provider: str = "openai") -> Source:
    named = [((provider, "m"), each) for each in entries]
    return Source(f"{name} 1.0", "0" * 64, dict(named))


def merged(
    first: dict[str, Any] | None, second: dict[str, Any] | None, provider: str = "openai"
) -> dict[str, Any]:
    sources = [
        source("litellm", *([first] if first else []), provider=provider),
        source("genai-prices", *([second] if second else []), provider=provider),
    ]
    (found,) = merge(sources, {}, DAY).values()
    return found


def test_each_entry_says_its_source() -> None:
    assert merged(entry(), None) == entry() | {"source": "litellm"}
    assert merged(None, entry()) == entry() | {"source": "genai-prices"}


def test_the_first_source_of_the_provider_has_the_word() -> None:
    assert merged(entry("1"), entry("9"))[INPUT] == "1"
    openrouter = merged(entry("1"), entry("9"), "openrouter")
    assert (openrouter[INPUT], openrouter["source"]) == ("9", "genai-prices")


def test_a_source_without_a_price_has_none() -> None:
    unpriced = {"mode": "chat", INPUT: "0", OUTPUT: "0"}
    assert merged(unpriced, entry())["source"] == "genai-prices"
    assert merged(entry(), unpriced) == entry() | {"source": "litellm"}


def test_differences_are_kept() -> None:
    found = merged(entry("1", **{CACHE_READ: "0.1"}), entry("1.5", "2.0", **{CACHE_READ: "0.2"}))
    assert found["disputed"] == {"genai-prices": {INPUT: "1.5", CACHE_READ: "0.2"}}
    assert list(disagreements(iter([(*M, found)]))) == [
        Disagreement("openai/m", INPUT, "litellm", "1", "genai-prices", "1.5"),
        Disagreement("openai/m", CACHE_READ, "litellm", "0.1", "genai-prices", "0.2"),
    ]
    assert list(disagreements(iter([(*M, entry())]))) == []


def test_who_agrees_on_input_and_output_lends_the_rest() -> None:
    parts = [{"until": "2025-01-01", INPUT: "3"}]
    other = entry("1.0", **{CACHE_READ: "0.1", CACHE_WRITE: "1.25", DATED: parts})
    found = merged(entry(**{CACHE_WRITE: "1.3"}), other)
    assert (found[CACHE_READ], found[CACHE_WRITE], found[DATED]) == ("0.1", "1.3", parts)
    assert found["lent"] == {"by": "genai-prices", "what": [CACHE_READ, DATED]}
    assert found["disputed"] == {"genai-prices": {CACHE_WRITE: "1.25"}}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (entry(), entry("1.1", **{CACHE_READ: "0.1"})),  # another price: perhaps another model
        (entry(tiered_pricing=[]), entry(**{CACHE_READ: "0.1"})),
        (entry(**{CACHE_READ_OLD: "0.3"}), entry(**{CACHE_READ: "0.1"})),
        ({"mode": "embedding", INPUT: "1"}, entry(**{CACHE_READ: "0.1"})),
        (entry(), entry()),
    ],
)
def test_who_does_not_lends_nothing(own: dict[str, Any], other: dict[str, Any]) -> None:
    found = merged(own, other)
    assert CACHE_READ not in found
    assert "lent" not in found


def test_versions_count_only_where_nobody_lists_them() -> None:
    assert "versions" not in merged(None, entry()) | merged(entry(), entry(versions=["-ddd"]))
    assert merged(None, entry(versions=["-ddd"]))["versions"] == ["-ddd"]


def test_a_model_that_is_gone_is_kept_and_retired_once() -> None:
    before = {M: entry(source="litellm"), ("x", "y"): entry("7")}
    sources = [source("litellm", entry(), provider="new")]
    found = merge(sources, before, DAY)
    assert found[M] == entry(source="litellm", retired=DAY)
    assert found["x", "y"] == entry("7", source="litellm", retired=DAY)
    again = merge(sources, found, "2027-01-01")
    assert again == found


def test_a_model_of_a_source_that_was_not_read_is_kept_as_it_is() -> None:
    before = {M: entry(source="genai-prices")}
    found = merge([source("litellm", entry(), provider="new")], before, DAY)
    assert found[M] == entry(source="genai-prices")


def test_a_model_that_is_back_is_not_retired() -> None:
    before = {M: entry("5", source="litellm", retired="2026-01-01")}
    assert merge([source("litellm", entry())], before, DAY)[M] == entry(source="litellm")


def test_ids_sort_by_day() -> None:
    assert table_id([source("litellm"), source("genai-prices")], DAY) == (
        "2026-11-21-litellm-1.0-genai-prices-1.0"
    )


PRICES = st.decimals(0, 1, places=9).map(lambda usd: format(usd, "f"))
ENTRIES = st.dictionaries(st.sampled_from([INPUT, OUTPUT, CACHE_READ, CACHE_WRITE]), PRICES).map(
    lambda prices: {"mode": "chat", **prices}
)


@given(st.lists(ENTRIES, min_size=2, max_size=2), ENTRIES)
def test_whatever_is_said_the_word_of_the_first_that_prices_it_counts(
    said: list[dict[str, Any]], before: dict[str, Any]
) -> None:
    names = ("litellm", "genai-prices")
    sources = [source(name, each) for name, each in zip(names, said, strict=True)]
    found = merge(sources, {M: before}, DAY)[M]
    own = said[names.index(found["source"])]
    assert found.items() >= own.items()
    assert found.keys() - own.keys() <= PROVENANCE | {CACHE_READ, CACHE_WRITE}
    assert merge(sources, {M: found}, DAY)[M] == found


def test_the_published_table_is_what_is_installed_makes(tmp_path: Path) -> None:
    pytest.importorskip("importlib.metadata").version("litellm")
    pytest.importorskip("importlib.metadata").version("genai-prices")
    sources = load_installed(DAY)
    published = {info.id: info for info in known_tables()}
    info = published[table_id(sources, DAY)]
    header = json.loads(Path(info.path).read_bytes().partition(b"\n")[0])
    assert header["source"] == ", ".join(each.name for each in sources)
    assert header["source_sha256"] == ",".join(each.sha256 for each in sources)
    made = a_table(tmp_path, merge(sources, {}, DAY))
    assert diff_tables(PriceTable.open(info.path), made) == ([], [], [])
