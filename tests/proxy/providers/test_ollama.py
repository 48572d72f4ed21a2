"""Ollama's native API."""

import json
from typing import Any

import pytest
from hypothesis import given

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts, Meter
from proxy.providers.ollama import Ollama
from tests.cuts import cut, offsets

OLLAMA = Ollama()
LINES = "application/x-ndjson"
MESSAGES = [{"role": "user", "content": "hi"}]


def facts_of(path: str, **body: Any) -> Facts:
    route = OLLAMA.route("POST", path)
    assert route is not None
    assert route.kind == "metered"
    return OLLAMA.facts(route, path, b"", json.dumps({"model": "llama3", **body}).encode())


def a_meter(facts: Facts, kind: str = LINES, status: int = 200) -> Meter:
    return OLLAMA.meter(facts, status=status, content_type=kind, inject_usage=True)


def test_a_stream_is_what_one_gets_unasked() -> None:
    assert facts_of("/api/chat", messages=MESSAGES).stream
    assert facts_of("/api/generate", prompt="x", stream=None).stream
    assert not facts_of("/api/chat", messages=MESSAGES, stream=False).stream
    assert not facts_of("/api/embed", input="x").stream


def test_bounds() -> None:
    size = facts_of("/api/chat", messages=MESSAGES, options={"num_predict": 50}).size
    assert size.output_limit == 50
    assert (
        facts_of("/api/generate", prompt="x", options={"num_predict": -1}).size.output_limit is None
    )
    assert facts_of("/api/generate", prompt="x", images=["A", "B"]).size.inline_images == 2
    messages = [{**MESSAGES[0], "images": ["A"]}, *MESSAGES]
    assert facts_of("/api/chat", messages=messages, think=True).size.inline_images == 1
    size = facts_of("/api/embed", input=["a", "b"]).size
    assert (size.inputs, size.generates) == (2, False)


def test_clamping_writes_into_the_options() -> None:
    facts = facts_of("/api/chat", messages=MESSAGES, options={"seed": 1})
    body = json.dumps(facts.body).encode()
    assert OLLAMA.edit(facts, body, clamp=None, inject_usage=True) is body
    edited = json.loads(OLLAMA.edit(facts, body, clamp=9, inject_usage=True))
    assert edited["options"] == {"seed": 1, "num_predict": 9}


LAST = {"model": "llama3", "done": True, "prompt_eval_count": 17, "eval_count": 50}
STREAM = (
    b'{"model":"llama3","message":{"content":"\\"done\\":true \\n"},"done":false}\n'
    b'{"model":"llama3","message":{"role":"assistant","content":" did"},"done":false}\n'
    + json.dumps(LAST, separators=(",", ":")).encode()
    + b"\n"
)


@given(offsets())
def test_a_stream_of_lines(at: list[int]) -> None:
    meter = a_meter(facts_of("/api/chat", messages=MESSAGES))
    for piece in cut(STREAM, at):
        assert not meter.ended
        assert meter.feed(piece) == piece
    assert meter.ended
    assert meter.finish() == b""
    reading = meter.reading()
    assert (reading.usage, reading.model, reading.complete) == (Usage(17, 50), "llama3", True)


def test_a_last_line_without_its_end_counts() -> None:
    meter = a_meter(facts_of("/api/chat", messages=MESSAGES))
    meter.feed(STREAM.rstrip(b"\n"))
    meter.finish()
    assert meter.reading().usage == Usage(17, 50)


def test_a_prompt_that_was_cached_in_full_has_no_count() -> None:
    meter = a_meter(facts_of("/api/generate", prompt="x", stream=False), "application/json")
    meter.feed(b'{"model":"llama3","response":"x","done":true,"eval_count":38}')
    assert meter.reading().usage == Usage(0, 38)


def test_a_stream_that_breaks() -> None:
    meter = a_meter(facts_of("/api/chat", messages=MESSAGES))
    meter.feed(STREAM[: STREAM.rindex(b"{")])
    reading = meter.reading()
    assert (reading.usage, reading.complete) == (None, False)
    assert reading.delivered_output_tokens == 4 + 1


def test_errors() -> None:
    meter = a_meter(facts_of("/api/chat", messages=MESSAGES))
    meter.feed(b'{"error":"out of memory"}\n')
    assert meter.reading().error == "error"
    refusal = Refusal("draining", "going away")
    facts = facts_of("/api/chat", messages=MESSAGES)
    assert json.loads(OLLAMA.error_event(facts, refusal, "r")) == {"error": "going away"}
    assert json.loads(OLLAMA.error_body(refusal, "r"))["error"]["message"] == "going away"
    facts = facts_of("/v1/chat/completions", messages=MESSAGES)
    assert OLLAMA.error_event(facts, refusal, "r").startswith(b"data: {")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/api/show", "free"),
        ("POST", "/api/pull", "unmetered"),
        ("DELETE", "/api/delete", "unmetered"),
        ("GET", "/api/tags", "free"),
        ("POST", "/v1/chat/completions", "metered"),
        ("POST", "/v1/messages", "unmetered"),
    ],
)
def test_routes(method: str, path: str, kind: str) -> None:
    route = OLLAMA.route(method, path)
    assert route is not None
    assert route.kind == kind


def test_the_compatible_api_is_read_as_such() -> None:
    facts = facts_of("/v1/chat/completions", messages=MESSAGES, stream=True)
    body = json.dumps(facts.body).encode()
    assert b"include_usage" in OLLAMA.edit(facts, body, clamp=None, inject_usage=True)
    meter = a_meter(facts, "text/event-stream")
    meter.feed(b'data: {"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n')
    assert meter.reading().usage == Usage(5, 3)
