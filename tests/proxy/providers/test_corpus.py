"""Every recorded exchange of the metered routes, its reply cut into pieces."""

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.money import nano_from_usd
from pricing.usage import Usage
from proxy.providers.base import Facts, Meter, Reading
from proxy.providers.registry import dialect
from tests.corpus import body_of, dialect_of, records
from tests.cuts import cut, offsets

APIS = (
    *("openai_chat", "openai_completions", "openai_responses", "openai_responses_aux"),
    *("openai_embeddings", "anthropic_messages", "anthropic_complete"),
    *("gemini_generate", "gemini_embed", "gemini_count", "gemini_interactions"),
    *("openai_images", "openai_speech", "openai_transcription", "openai_moderations"),
    *("cohere_chat", "cohere_other", "rerank", "mistral_ocr"),
    *("ollama_native", "ollama_embed"),
)
# Wire formats of their own, and their own recordings' tests.
ELSEWHERE = {"bedrock", "bedrock_mantle", "vertex"}
TOKENS = (
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("cache_write_1h_tokens", "reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
    *("input_image_tokens", "output_image_tokens", "input_video_tokens"),
)
# Not metered here: why.
UNREAD = {
    "92769e867054977ccafd": "the recording lost its request body",
    "5bc213c0600794df7862": "a stored prompt of a gateway: the request names no model",
}
BACKGROUND = {"a9462ec8682bf56e3c7d"}
# Usage that differs from the expectation: why.
DIFFERENT = {
    "a10f5c4c02958c1eba2a": "invented counts: reasoning 3 + audio 4 of output 4; parts are clamped",
    "2f99ba74a87451a26d6c": "cache read and cache write both 2,161 of input 2,168; clamped",
    "d46e6c7cd70905939527": "reasoning 11 of output 10; clamped",
    "cb59e5454f9318dbdd3a": "258 of the input are an image's, as the reply says",
    "2e5f0f2042c3ff5744ee": "speech: its characters are known from the request",
}
# Grok on Azure reports 0 ticks on calls that cost money: no figure of the provider's.
FREE_TICKS = {"e41b6aff074dd6e0008f", "1e2cbded3b6934bcef66", "38063dd655438ef47b91"}
STANDARD = {None, "", "auto", "default", "standard", "on_demand", "ON_DEMAND", 1}
UNITS = {"web_search": "web_search", "web_search_request": "web_search", "file_search": None}


def metered() -> Iterator[tuple[dict[str, Any], Facts, Any]]:
    for record in records(*APIS):
        path, _, query = record["path"].partition("?")
        if record["provider"] in ELSEWHERE:
            continue
        wire = dialect(dialect_of(record))
        route = wire.route(record["method"], path)
        assert route is not None
        if route.kind == "metered" and record["id"] not in UNREAD:
            body = body_of(record, "request")
            yield record, wire.facts(route, path, query.encode(), body), wire


def a_meter(record: dict[str, Any], facts: Facts, wire: Any, *, inject: bool = False) -> Meter:
    content_type = record["response_headers"].get("content-type", "")
    return wire.meter(
        facts, status=record["status"], content_type=content_type, inject_usage=inject
    )


def relay(meter: Meter, pieces: list[bytes]) -> tuple[bytes, Reading]:
    passed = b"".join([meter.feed(piece) for piece in pieces]) + meter.finish()
    return passed, meter.reading()


def random_pieces(record: dict[str, Any]) -> list[bytes]:
    body = body_of(record, "response")
    chance = random.Random(record["id"])
    return cut(body, [chance.randrange(len(body) + 1) for _ in range(1 + len(body) // 200)])


def differences(usage: Usage | None, expected: dict[str, Any] | None) -> list[str]:
    if usage is None or expected is None:
        return [] if usage is expected else [f"usage {usage}, expected {expected}"]
    found = [
        f"{name} {getattr(usage, name)}, expected {expected.get(name, 0)}"
        for name in TOKENS
        if getattr(usage, name) != expected.get(name, 0)
    ]
    tier = expected.get("service_tier")
    if usage.service_tier != ("" if tier in STANDARD else tier):
        found.append(f"tier {usage.service_tier}, expected {tier}")
    return found


def readings() -> Iterator[tuple[dict[str, Any], Reading]]:
    for record, facts, wire in metered():
        yield record, relay(a_meter(record, facts, wire), random_pieces(record))[1]


def test_usage_and_model_of_every_reply() -> None:
    checked, wrong = 0, {}
    for record, facts, wire in metered():
        passed, reading = relay(a_meter(record, facts, wire), random_pieces(record))
        assert passed == body_of(record, "response"), record["id"]
        if found := differences(reading.usage, record["expected_usage"]):
            wrong[record["id"]] = found
        assert reading.model == (record["model_reported"] or reading.model), record["id"]
        checked += 1
    assert checked > 600
    assert wrong.keys() == DIFFERENT.keys(), wrong


def test_a_background_response_is_open() -> None:
    """Its usage arrives on later polls."""
    opened = {r["id"]: reading.opened for r, reading in readings() if reading.opened}
    assert opened.keys() == BACKGROUND
    assert all(name.startswith("resp_") for name in opened.values())


def test_complete_replies_end_as_complete() -> None:
    without_end = {"71cf0d932646e4bbb225"}  # Writer's stream of bare values
    for record, facts, wire in metered():
        if record["status"] == 200 and record["id"] not in without_end | BACKGROUND:
            _, reading = relay(a_meter(record, facts, wire), random_pieces(record))
            assert reading.complete, record["id"]
            assert not reading.partial


def test_errors_are_named_and_have_no_usage() -> None:
    seen = 0
    for record, facts, wire in metered():
        if record["status"] >= 400:
            _, reading = relay(a_meter(record, facts, wire), random_pieces(record))
            assert reading.usage is None
            seen += bool(reading.error)
    assert seen > 40


def test_tool_units() -> None:
    """web_search and file_search as counted; code runs per container; empty Google queries and
    fetched pages are not billed."""
    seen = 0
    for record, facts, wire in metered():
        expected = (record["expected_usage"] or {}).get("tool_units") or {}
        _, reading = relay(a_meter(record, facts, wire), random_pieces(record))
        if reading.usage is None:
            continue
        units = reading.usage.units
        for name in ("web_search", "file_search"):
            if name in expected:
                assert units[name] == expected[name], record["id"]
                seen += 1
        if "code_interpreter" in expected:
            assert units["code_interpreter"] == 1
        if "google_search_queries" in expected:
            queries = record["response_body"].count('[""')
            assert units["web_search"] == expected["google_search_queries"] - queries
    assert seen > 10


def test_the_providers_own_figure() -> None:
    seen = 0
    for record, facts, wire in metered():
        expected = (record["expected_usage"] or {}).get("provider_cost_usd")
        if expected is not None and record["id"] not in FREE_TICKS:
            _, reading = relay(a_meter(record, facts, wire), random_pieces(record))
            assert reading.usage is not None
            assert reading.usage.provider_cost_nano == nano_from_usd(Decimal(expected))
            seen += 1
    assert seen > 60


def without_usage_chunks(body: str) -> str:
    kept = []
    for event in body.split("\n\n"):
        data = event.removeprefix("data: ")
        chunk = msgspec.json.decode(data) if data.startswith("{") else {}
        if not (chunk.get("choices") == [] and chunk.get("usage")):
            kept.append(event)
    return "\n\n".join(kept)


def test_the_usage_chunk_is_withheld_where_it_was_not_asked_for() -> None:
    withheld = 0
    for record, facts, wire in metered():
        if record["api"] == "openai_chat" and record["stream"] and record["status"] == 200:
            facts.wants_usage_chunk = False
            meter = a_meter(record, facts, wire, inject=True)
            passed, reading = relay(meter, random_pieces(record))
            expected = without_usage_chunks(record["response_body"])
            assert passed.decode() == expected, record["id"]
            assert not differences(reading.usage, record["expected_usage"]) or (
                record["id"] in DIFFERENT
            )
            withheld += expected != record["response_body"]
    assert withheld > 20


streams = st.deferred(
    lambda: st.sampled_from(
        [entry for entry in metered() if entry[0]["stream"] and entry[0]["status"] == 200]
    )
)


@settings(max_examples=200, deadline=None)
@given(st.data(), offsets(60), st.booleans())
def test_readings_do_not_depend_on_the_cuts(data: Any, at: list[int], inject: bool) -> None:
    records(*APIS)  # skips where there are none
    record, facts, wire = data.draw(streams)
    body = body_of(record, "response")
    facts.wants_usage_chunk = not inject
    whole, expected = relay(a_meter(record, facts, wire, inject=inject), [body])
    passed, reading = relay(a_meter(record, facts, wire, inject=inject), cut(body, at))
    assert passed == whole
    reading.delivered_output_tokens = expected.delivered_output_tokens
    assert reading == expected


def test_streams_that_break_give_lower_bounds() -> None:
    """Cut in the middle: an estimate of half the output, and no report above the whole."""
    estimates = []
    for record, facts, wire in metered():
        usage = record["expected_usage"]
        if not record["stream"] or not usage or record["status"] != 200:
            continue
        meter = a_meter(record, facts, wire)
        body = body_of(record, "response")
        meter.feed(body[: len(body) // 2])
        reading = meter.reading()
        reported = reading.usage.output_tokens if reading.usage else 0
        if wire.name != "gemini":  # its counts of a first chunk may be taken back
            assert reported <= usage["output_tokens"], record["id"]
        if usage["output_tokens"] > 40 and not usage.get("reasoning_tokens"):
            estimated = max(reported, reading.delivered_output_tokens)
            estimates.append(estimated / usage["output_tokens"])
    estimates.sort()
    assert len(estimates) > 40
    assert 0.3 < estimates[len(estimates) // 2] < 0.7
