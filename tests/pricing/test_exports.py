"""Providers' cost exports: one hand-made file of each, and everything that is none."""

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pricing.errors import ExportError
from pricing.exports import SOURCES, read_export

FILES = Path(__file__).parent / "exports"
FIRST, SECOND, THIRD = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
MAPPING = {"day": "Usage Date", "model": "Deployment", "cost_cents": "Charge (cents)"}


def export_of(source, name, mapping=None):
    return read_export(source, (FILES / name).read_bytes(), mapping)


def test_openai_line_items_are_added_up_by_model_and_tools_stay_apart():
    export = export_of("openai", "openai_costs.json")
    assert export.days == (FIRST, SECOND)
    assert export.nano == {
        (FIRST, "gpt-5-2025-08-07"): 12_500_000 + 100_000_000 + 1_250,
        (FIRST, "tool:web_search"): 20_000_000,
    }


def test_openai_without_line_items_has_no_models():
    page = json.loads((FILES / "openai_costs.json").read_text())
    for result in page["data"][0]["results"]:
        result["line_item"] = None
    export = read_export("openai", json.dumps(page).encode())
    assert export.nano == {(FIRST, ""): 132_501_250}


def test_anthropic_amounts_are_cents():
    export = export_of("anthropic", "anthropic_cost_report.json")
    assert export.days == (FIRST, SECOND)
    assert export.nano == {
        (FIRST, "claude-sonnet-4-5-20250929"): 2_000_000_000,
        (FIRST, "tool:web_search"): 30_000_000,
    }


def test_openrouter_days_between_have_no_costs():
    export = export_of("openrouter", "openrouter_activity.json")
    assert export.days == (FIRST, SECOND, THIRD)
    assert export.nano == {
        (FIRST, "openai/gpt-4.1"): 20_000_000,
        (THIRD, "x-ai/grok-4"): 1_000_000_000,
    }


def test_openrouter_generations_are_added_up_by_day():
    export = export_of("openrouter", "openrouter_activity.csv")
    assert export.nano == {
        (FIRST, "openai/gpt-4.1-2025-04-14"): 2_000_000,
        (SECOND, "anthropic/claude-4.5-haiku-20251001"): 250_000_000,
    }


def test_a_mapping_names_the_columns():
    export = export_of("csv", "generic.csv", MAPPING)
    assert export.nano == {
        (FIRST, "gpt-5"): 12_505_000_000,
        (SECOND, "gpt-5"): 1_000_000_000,  # 23:30 two hours behind UTC
        (SECOND, "gpt-4o"): 0,
    }
    whole = {"day": "Usage Date", "cost_usd": "Charge (cents)"}
    assert export_of("csv", "generic.csv", whole).nano[SECOND, ""] == 100_000_000_000


def test_pages_may_come_as_a_list():
    page = json.loads((FILES / "anthropic_cost_report.json").read_text())
    twice = json.dumps([page, page]).encode()
    assert read_export("anthropic", twice).nano[FIRST, "tool:web_search"] == 60_000_000


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        ("openai", "{", "not JSON"),
        ("openai", "[" * 100_000, "not JSON"),
        ("openai", "{}", "expected an answer of the API"),
        ("openai", '{"data": [{}]}', "not an export of openai: KeyError"),
        ("openai", '{"data": [{"start_time": 1e400, "results": []}]}', "not an export"),
        (
            "openai",
            '{"data": [{"start_time": 1, "results": [{"amount": '
            '{"value": 1, "currency": "eur"}}]}]}',
            "amounts in eur",
        ),
        ("anthropic", '{"data": [{"starting_at": "soon", "results": []}]}', "'soon' is no date"),
        (
            "anthropic",
            '{"data": [{"starting_at": "2026-01-01", "results": [{"currency": "USD", '
            '"amount": "NaN"}]}]}',
            "'NaN' is no amount",
        ),
        ("openrouter", '{"data": "x"}', "not an export"),
        ("openrouter", "a,b\n1,2\n", "no column 'created_at'"),
        ("csv", "a,b\n", "name the columns"),
        ("csv", "\ufffd", "name the columns"),
    ],
)
def test_what_is_no_export_says_why(source, text, message):
    with pytest.raises(ExportError, match=message):
        read_export(source, text.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d,c\n2026-01-01,1\nyesterday,1\n", "line 3: 'yesterday' is no date"),
        ("d,c\n2026-01-01,free\n", "line 2: 'free' is no amount"),
        ("d,c\n2026-01-01\n", "line 2: None is no amount"),
        ("d,c\n0001-01-01,1\n9999-01-01,1\n", "spans more than"),
        ("d,e\n", "line 1: no column 'c'"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text, message):
    with pytest.raises(ExportError, match=message):
        read_export("csv", text.encode(), {"day": "d", "cost_usd": "c"})


@pytest.mark.parametrize(
    "mapping", [{"day": "d", "cost_usd": "c", "cost_cents": "c"}, {"day": "d", "when": "c"}, {}]
)
def test_a_mapping_that_cannot_be_used(mapping):
    with pytest.raises(ExportError, match="mapping"):
        read_export("csv", b"d,c\n", mapping)


def test_bytes_that_are_no_text():
    with pytest.raises(ExportError, match="not UTF-8"):
        read_export("openai", b"\xff")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["data", "results", "start_time", "starting_at", "amount", "value",
                         "currency", "date", "model", "usage", "line_item"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@example(source="openai", document={"data": [{"start_time": -62135596801}]})  # the year 0
@given(source=st.sampled_from(SOURCES), document=json_values)
def test_anything_is_read_or_refused(source, document):
    data = json.dumps({"data": document}).encode()
    try:
        export = read_export(source, data, {"day": "d", "cost_usd": "c"})
    except ExportError:
        return
    assert all(day in export.days for day, _ in export.nano)
