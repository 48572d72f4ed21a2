import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.calculator import cost
from pricing.errors import TableError
from pricing.price import Price
from pricing.table import (
    TABLES_DIR,
    PriceTable,
    choose_table,
    list_tables,
    write_table,
)
from pricing.usage import Usage
from tests.factories import a_table, an_entry

# A published table never changes: rows refer to it. A new one is a new line here.
PUBLISHED = {
    "2026-11-21-litellm-1.106.2": (
        4_193,
        "fef45fcc2195443b640d574e39f604b785a83d9d2c461d0f6181fe03350d90a9",
    ),
    "2026-11-21-litellm-1.106.2-genai-prices-0.2.3": (
        6_448,
        "b6b824d0833e456f8a38efcf7af3708a11f4e5cd283993ad7321f03453547769",
    ),
}


def test_published_tables_are_as_they_were() -> None:
    found = {info.id: (info.entries, info.sha256) for info in list_tables(TABLES_DIR)}
    assert found == PUBLISHED


def test_every_published_entry_compiles() -> None:
    for info in list_tables(TABLES_DIR):
        table = PriceTable.open(info.path, info.sha256)
        keys = [Price.compile(*item).key for item in table.items()]
        assert keys == list(table.keys())
        assert len(keys) == len(table) == info.entries


@pytest.mark.parametrize(
    ("provider", "model", "key"),
    [
        ("openai", "gpt-4o-2024-08-06", "openai/gpt-4o-2024-08-06"),
        ("openai", "ft:gpt-4o-2024-08-06:acme::id", "openai/ft:gpt-4o-2024-08-06"),
        ("anthropic", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5-20250929"),
        ("gemini", "models/gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("google", "gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("vertex", "publishers/google/models/gemini-2.5-flash", "vertex_ai/gemini-2.5-flash"),
        ("groq", "openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("azure", "gpt-4o-2024-08-06", "azure/gpt-4o-2024-08-06"),
        ("deepseek", "deepseek-chat", "deepseek/deepseek-chat"),
        (
            "bedrock",
            "us.anthropic.claude-haiku-4-5-20251001-v1%3A0",
            "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
    ],
)
def test_names_in_use_find_their_entry(provider: str, model: str, key: str) -> None:
    price = newest().quote(provider, model)
    assert price is not None
    assert price.key == key


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-2099-01-01"),  # a snapshot nobody knows: no prefix match
        ("openai", "gpt"),
        ("openai", "claude-sonnet-4-5"),  # another provider's
        ("openai", "ft:gpt-9:acme::id"),
        ("groq", "gpt-4o"),
        ("openai", "dall-e-3"),  # per image, not per token
        ("gemini", "gemini-exp-1114"),  # a zero that means unknown
        ("nobody", "gpt-4o"),
    ],
)
def test_other_names_are_not_priced(provider: str, model: str) -> None:
    assert newest().quote(provider, model) is None


def test_same_name_at_several_providers_has_each_ones_price() -> None:
    gemini, vertex = (
        newest().entry("gemini", "gemini-2.5-pro"),
        newest().entry("vertex_ai", "gemini-2.5-pro"),
    )
    assert gemini is not None
    assert vertex is not None
    assert gemini != vertex


def newest() -> PriceTable:
    return PriceTable.open(list_tables(TABLES_DIR)[-1].path)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters='"\\/', exclude_categories=["C"]))
NAMES = TEXT.filter(bool)
PRICES = st.decimals(0, 1, allow_nan=False, places=15).map(lambda usd: format(usd, "f"))
ENTRIES = st.dictionaries(
    st.tuples(NAMES, NAMES),
    st.fixed_dictionaries(
        {"input_cost_per_token": PRICES, "output_cost_per_token": PRICES},
        optional={"max_tokens": st.integers(1, 10**6), "note": TEXT},
    ),
    max_size=5,
)


@settings(max_examples=40)
@given(ENTRIES)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[tuple[str, str], dict[str, object]]
) -> None:
    table = a_table(tmp_path_factory.mktemp("tables"), entries)
    assert {(provider, model): entry for provider, model, entry in table.items()} == entries
    usage = Usage(input_tokens=123_456, output_tokens=7)
    for (provider, model), entry in entries.items():
        want = Price.compile(provider, model, entry)
        got = Price.compile(provider, model, table.entry(provider, model) or {})
        assert cost(usage, got) == cost(usage, want)


def test_writing_again_changes_nothing_and_another_content_is_refused(tmp_path: Path) -> None:
    first = a_table(tmp_path)
    assert a_table(tmp_path).sha256 == first.sha256
    with pytest.raises(TableError, match="published tables never change"):
        a_table(tmp_path, {("openai", "model-1"): an_entry(max_input_tokens=1)})
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_another_hash_is_refused(tmp_path: Path) -> None:
    path = a_table(tmp_path).info.path
    with pytest.raises(TableError, match=r"sha256 is \w{64}, expected 00"):
        PriceTable.open(path, "00")


def test_an_edit_is_noticed(tmp_path: Path) -> None:
    path = Path(a_table(tmp_path).info.path)
    path.write_bytes(path.read_bytes().replace(b'"0.000001"', b'"0.000000"'))
    with pytest.raises(TableError, match="edited or cut"):
        PriceTable.open(path)
    with pytest.raises(TableError, match="edited or cut"):
        list_tables(tmp_path)


def handmade(tmp_path: Path, lines: list[str], **fields: object) -> Path:
    """A file whose header fits its lines, whatever they are."""
    body = "".join(f"{line}\n" for line in lines).encode()
    header = {
        "format": "tollkeeper-prices/1",
        "id": "t",
        "source": "s",
        "effective_from": "2026-11-21",
        "entries": len(lines),
        "entries_sha256": hashlib.sha256(body).hexdigest(),
    }
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(header | fields).encode() + b"\n" + body)
    return path


GOOD = '["p","m",{"input_cost_per_token":"1"}]'


@pytest.mark.parametrize(
    ("lines", "fields", "reason"),
    [
        ([GOOD, "nonsense"], {}, r"t.jsonl:3: expected \["),
        ([GOOD, ""], {}, r"t.jsonl:3: expected \["),
        (['["p","m",[]]'], {}, r"t.jsonl:2: expected \["),
        (['["p/q","m",{}]'], {}, r"t.jsonl:2: expected \["),
        ([GOOD, GOOD], {}, "t.jsonl:3: p/m is listed twice"),
        ([GOOD], {"entries": 2}, "1 entries, but its header says 2"),
        ([GOOD], {"format": "other/9"}, "t.jsonl:1: format 'other/9'"),
        ([GOOD], {"entries": "many"}, "t.jsonl:1: not a price table header"),
    ],
)
def test_malformed_tables_are_refused_by_line(
    tmp_path: Path, lines: list[str], fields: dict[str, object], reason: str
) -> None:
    path = handmade(tmp_path, lines, **fields)
    with pytest.raises(TableError, match=reason):
        PriceTable.open(path)


def test_an_entry_that_is_no_json_is_refused_by_line(tmp_path: Path) -> None:
    table = PriceTable.open(handmade(tmp_path, [GOOD, '["p","x",{"a":}]']))
    assert table.quote("p", "y") is None
    with pytest.raises(TableError, match=r"t\.jsonl:3: not JSON") as caught:
        table.entry("p", "x")
    assert (caught.value.path, caught.value.line) == (table.info.path, 3)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[]\n", b"\xff\n", b"[" * 100_000])
def test_files_that_are_no_tables(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"t\.jsonl:1: not a price table header"):
        PriceTable.open(path)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TableError, match=r"none\.jsonl: No such file"):
        PriceTable.open(tmp_path / "none.jsonl")
    monkeypatch.setattr("pricing.table.TABLE_BYTES_MAX", 100)
    with pytest.raises(TableError, match="larger than"):
        a_table(tmp_path)


def test_the_newest_table_in_effect_is_chosen(tmp_path: Path) -> None:
    for month in ("09", "11", "10"):
        a_table(tmp_path, table_id=f"t{month}", effective_from=f"2026-{month}-01")
    tables = list_tables(tmp_path)
    assert [info.id for info in tables] == ["t09", "t10", "t11"]
    assert choose_table(tables, "2026-10-31").id == "t10"
    assert choose_table(tables, "2026-11-01").id == "t11"
    assert choose_table(tables, "2026-11-01", "t09").id == "t09"
    with pytest.raises(TableError, match="none is effective on 2026-08-31"):
        choose_table(tables, "2026-08-31")
    with pytest.raises(TableError, match=r"t12: no such price table .known: t09, t10, t11"):
        choose_table(tables, "2026-11-01", "t12")


def test_a_table_says_where_it_is_from(tmp_path: Path) -> None:
    info = write_table(
        tmp_path / "new",
        {("p", "m"): an_entry()},
        table_id="t",
        source="litellm 1.0",
        source_sha256="ab",
        effective_from="2026-01-01",
    )
    table = PriceTable.open(info.path, info.sha256)
    assert (table.id, table.source, table.effective_from) == ("t", "litellm 1.0", "2026-01-01")
    header = json.loads(Path(info.path).read_bytes().partition(b"\n")[0])
    assert header["source_sha256"] == "ab"
