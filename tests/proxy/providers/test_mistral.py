"""Mistral: OCR by the page, and what differs from OpenAI's format."""

import json
from typing import Any

import pytest

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.mistral import Mistral

MISTRAL = Mistral()
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


def facts_of(path: str, **body: Any) -> Facts:
    route = MISTRAL.route("POST", path)
    assert route is not None
    assert route.kind == "metered"
    return MISTRAL.facts(route, path, b"", json.dumps({"model": "m", **body}).encode())


@pytest.mark.parametrize(
    ("body", "units"),
    [
        ({"document": {"type": "document_url", "document_url": "x"}}, {"pages": 1000}),
        ({"document": {"type": "document_url"}, "pages": [0, 3]}, {"pages": 2}),
        ({"document": {"type": "document_url"}, "pages": "0-7"}, {"pages": 1000}),
        ({"document": {"type": "image_url", "image_url": "x"}}, {"pages": 1}),
        (
            {"document": {"type": "image_url"}, "bbox_annotation_format": {"type": "json_schema"}},
            {"pages": 1, "annotated_pages": 1},
        ),
    ],
)
def test_pages_of_a_request(body: dict[str, Any], units: dict[str, int]) -> None:
    facts = facts_of("/v1/ocr", **body)
    assert facts.size.units == units
    assert not facts.size.generates
    assert not facts.clampable


def test_pages_of_a_reply() -> None:
    facts = facts_of(
        "/v1/ocr", document={"type": "document_url"}, document_annotation_format={"a": 1}
    )
    kind = "application/json"
    meter = MISTRAL.meter(facts, status=200, content_type=kind, inject_usage=True)
    meter.feed(b'{"pages":[],"model":"mistral-ocr-2512","usage_info":{"pages_processed":3}}')
    reading = meter.reading()
    assert reading.usage == Usage(units={"pages": 3, "annotated_pages": 3})
    assert (reading.model, reading.complete) == ("mistral-ocr-2512", True)
    meter = MISTRAL.meter(facts, status=200, content_type=kind, inject_usage=True)
    meter.feed(b'{"pages":["' + b"x" * 2**22 + b'"],"usage_info":{"pages_processed":2}}')
    assert meter.reading().usage == Usage(units={"pages": 2, "annotated_pages": 2})
    meter = MISTRAL.meter(facts, status=200, content_type=kind, inject_usage=True)
    meter.feed(b'{"usage_info":{"pages_processed":3,"pages_processed_annotation":1}}')
    assert meter.reading().usage == Usage(units={"pages": 3, "annotated_pages": 1})
    meter = MISTRAL.meter(facts, status=422, content_type=kind, inject_usage=True)
    meter.feed(b'{"error":{"code":"1"}}')
    assert meter.reading().usage is None


def test_no_field_is_added_but_the_limit() -> None:
    facts = facts_of(CHAT, messages=MESSAGES, stream=True)
    body = json.dumps(facts.body).encode()
    assert MISTRAL.edit(facts, body, clamp=None, inject_usage=True) is body
    edited = json.loads(MISTRAL.edit(facts, body, clamp=9, inject_usage=True))
    assert edited == {**facts.body, "max_tokens": 9}


def test_filling_in_the_middle() -> None:
    facts = facts_of("/v1/fim/completions", prompt="def f(", suffix="return 1", max_tokens=7)
    assert (facts.route.name, facts.size.output_limit) == ("completions", 7)


def test_no_error_event_is_known_to_its_sdk() -> None:
    facts = facts_of(CHAT, messages=MESSAGES, stream=True)
    assert MISTRAL.error_event(facts, Refusal("draining", "x"), "r") == b""


@pytest.mark.parametrize("path", ["/v1/agents/completions", "/v1/conversations", "/v1/moderations"])
def test_what_is_not_metered(path: str) -> None:
    route = MISTRAL.route("POST", path)
    assert route is not None
    assert route.kind == "unmetered"
