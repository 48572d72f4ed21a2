"""Voyage: embeddings of texts, parts and chunks, and rerank."""

import json
from typing import Any

import pytest

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.voyage import Voyage

VOYAGE = Voyage()


def facts_of(path: str, **body: Any) -> Facts:
    route = VOYAGE.route("POST", path)
    assert route is not None
    assert route.kind == "metered"
    return VOYAGE.facts(route, path, b"", json.dumps({"model": "m", **body}).encode())


def test_embeddings() -> None:
    size = facts_of("/v1/embeddings", input=["a", "b"]).size
    assert (size.inputs, size.generates) == (2, False)
    size = facts_of("/v1/contextualizedembeddings", inputs=[["a", "b"], ["c"]]).size
    assert (size.inputs, size.windowed, size.generates) == (2, False, False)


def test_what_is_no_text_takes_the_window() -> None:
    text, image = {"type": "text", "text": "x"}, {"type": "image_base64", "image_base64": "A"}
    path = "/v1/multimodalembeddings"
    assert not facts_of(path, inputs=[{"content": [text]}]).size.windowed
    size = facts_of(path, inputs=[{"content": [text]}, {"content": [text, image]}]).size
    assert (size.inputs, size.windowed) == (2, True)
    with pytest.raises(Refusal, match="inputs"):
        facts_of(path, input="x")


def test_totals_are_input() -> None:
    facts = facts_of("/v1/multimodalembeddings", inputs=[])
    meter = VOYAGE.meter(facts, status=200, content_type="application/json", inject_usage=True)
    meter.feed(
        b'{"model":"m","usage":{"text_tokens":5,"image_pixels":2000000,"total_tokens":3576}}'
    )
    assert meter.reading().usage == Usage(3576, 0)


def test_refusals_are_where_its_sdk_looks() -> None:
    body = json.loads(VOYAGE.error_body(Refusal("budget_exceeded", "spent"), "r"))
    assert body["detail"] == "spent"
    assert body["error"]["code"] == "budget_exceeded"
