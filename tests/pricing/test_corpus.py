"""Recorded traffic: costs equal what two independent price tables agree on, ceilings are above."""

import gzip
import json
import os
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pricing.book import PriceBook
from pricing.calculator import cost
from pricing.ceiling import ceiling
from pricing.money import nano_from_usd
from pricing.price import Price
from pricing.table import TABLES_DIR, PriceTable, choose_table, list_tables
from pricing.usage import RequestSize, Usage

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("TOLLKEEPER_CORPUS") or ROOT / "../shared/corpus/dev.jsonl.gz")

pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason=f"no recorded traffic at {CORPUS}")

# The agreed costs are those of this moment, a Saturday: DeepSeek is off-peak.
PRICED_AT_S = 1_795_262_400
COUNTS = [name for name in Usage.__dataclass_fields__ if name.endswith("_tokens")]

# Where the requested name carries the price and the reply's loses it.
REQUESTED_FIRST = {"bedrock", "openrouter"}


class Record(NamedTuple):
    data: dict[str, Any]
    usage: Usage
    price: Price
    agreed_nano: int


def usage_of(expected: dict[str, Any]) -> Usage:
    usage = Usage(**{name: expected[name] for name in COUNTS if expected.get(name) is not None})
    tier = expected.get("service_tier")
    usage.service_tier = tier if isinstance(tier, str) else ""
    usage.inference_geo = expected.get("inference_geo") or ""
    return usage


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """The records with an agreed cost; each must find its price."""
    book = PriceBook(PriceTable.open(choose_table(list_tables(TABLES_DIR), "2026-11-21").path))
    return list(_records(book))


def _records(book: PriceBook) -> Iterator[Record]:
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        for line in file:
            data = json.loads(line)
            agreed = data.get("expected_cost") or {}
            if not data.get("expected_usage") or not agreed.get("agreed"):
                continue
            names = [data["model_reported"] or "", data["model_requested"] or ""]
            if data["provider"] in REQUESTED_FIRST:
                names.reverse()
            price = book.quote(data["provider"], *names)
            assert price is not None, (data["provider"], names)
            nano = nano_from_usd(Decimal(agreed["value"]))
            yield Record(data, usage_of(data["expected_usage"]), price, nano)


def test_costs_are_those_agreed_on(records: list[Record]) -> None:
    assert len(records) > 400
    wrong = [
        (record.data["id"], record.price.key, found, record.agreed_nano)
        for record in records
        if (found := cost(record.usage, record.price, at_s=PRICED_AT_S).nano) != record.agreed_nano
    ]
    assert not wrong


# Content that is not inline, and tools the provider runs: only the window bounds them.
NOT_INLINE = re.compile(
    r'"(?:image_url|file_uri|fileUri|file_id|fileData|previous_response_id|conversation|document'
    r"|cachedContent|googleSearch|google_search|urlContext|codeExecution|code_execution|mcp\w*"
    r"|web_search\w*|web_fetch\w*|code_interpreter|file_search|image_generation|container"
    r'|context_management|advisor\w*)"|"https?://'
)
IMAGE = re.compile(r'"type":\s*"(?:image|input_image)"|"inlineData"|"inline_data"|data:image')
LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def size_of(body: str) -> RequestSize | None:
    """The size of a request that is text, images and an output limit; None for others."""
    try:
        request = json.loads(body)
    except ValueError:
        return None
    if not isinstance(request, dict) or NOT_INLINE.search(body):
        return None
    config = request.get("generationConfig") or request.get("generation_config") or {}
    limits = [request.get(name) for name in LIMITS] + [config.get("maxOutputTokens")]
    limit = next((limit for limit in limits if isinstance(limit, int)), None)
    texts = request.get("input")
    return RequestSize(
        body_bytes=len(body.encode()),
        output_limit=limit,
        choices=request.get("n") or config.get("candidateCount") or 1,
        inputs=len(texts) if isinstance(texts, list) and texts else 1,
        inline_images=len(IMAGE.findall(body)),
        service_tier=request.get("service_tier") or "",
    )


def test_ceilings_are_at_least_the_costs(records: list[Record]) -> None:
    below, compared = [], 0
    for record in records:
        size = size_of(record.data["request_body"] or "")
        # A recording edited by hand has a request shorter than the one its reply was made for.
        if size is None or record.data.get("hand_edited"):
            continue
        compared += 1
        bound = ceiling(size, record.price)
        if bound.nano < record.agreed_nano or bound.tokens < record.usage.total_tokens:
            below.append((record.data["id"], record.price.key, bound, record.usage))
    assert compared > 250
    assert not below
