"""The Realtime API's events: what they say of turns, and what a turn costs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.calculator import ceiling, cost
from pricing.money import NANO_PER_USD
from pricing.price import Price
from pricing.table import PriceTable, list_tables
from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.estimates import cut_to, estimated_usage
from proxy.providers.openai_realtime import (
    SECONDS_HELD,
    Heard,
    TurnMeter,
    answer_facts,
    client_event,
    delta_of,
    is_above,
    limit_in,
    server_event,
    suffices,
    transcript_facts,
    transcription_in,
)
from tests.realtime import USAGE

INFO = next(i for i in list_tables() if i.id.endswith("litellm-1.106.2-genai-prices-0.2.3"))
BOOK = PriceBook(PriceTable.open(INFO.path, INFO.sha256))


def priced(model: str) -> Price:
    price = BOOK.quote("openai", model)
    assert price is not None
    return price


def answered(usage: dict[str, Any]) -> Usage:
    meter = TurnMeter("gpt-realtime", "resp_1", Heard())
    meter.answered({"id": "resp_1", "status": "completed", "usage": usage})
    found = meter.reading().usage
    assert found is not None
    return found


# --- golden --------------------------------------------------------------------------------

WITH_EVERYTHING = {
    "total_tokens": 1_500,
    "input_tokens": 1_000,
    "output_tokens": 500,
    "input_token_details": {
        "text_tokens": 300,
        "audio_tokens": 600,
        "image_tokens": 100,
        "cached_tokens": 450,
        "cached_tokens_details": {"text_tokens": 200, "audio_tokens": 210, "image_tokens": 40},
    },
    "output_token_details": {"text_tokens": 120, "audio_tokens": 380},
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # gpt-realtime (litellm 1.106.2, 2026-11-21), USD per million tokens: text 4, cached 0.40,
        # audio 32, cached 0.40, images 5, cached 0.50; out: text 16, audio 64.
        # In nano-USD per token these are 4,000 400 32,000 400 5,000 500; 16,000 64,000.
        (USAGE, (119 - 64) * 4_000 + 64 * 400 + 13 * 32_000 + 30 * 16_000 + 91 * 64_000),
        (
            WITH_EVERYTHING,
            (300 - 200) * 4_000
            + (600 - 210) * 32_000
            + (100 - 40) * 5_000
            + 200 * 400
            + 210 * 400
            + 40 * 500
            + 120 * 16_000
            + 380 * 64_000,
        ),
    ],
)
def test_a_response_of_gpt_realtime(usage: dict[str, Any], expected: int) -> None:
    assert cost(answered(usage), priced("gpt-realtime")).nano == expected
    assert expected in (6_965_600, 39_604_000)


def test_a_transcription_by_tokens_and_one_by_seconds() -> None:
    facts = transcript_facts("gpt-4o-transcribe", SECONDS_HELD)
    meter = TurnMeter("", "item_1", Heard())
    details = {"text_tokens": 0, "audio_tokens": 13}
    usage = {"type": "tokens", "input_tokens": 13, "output_tokens": 9, "total_tokens": 22}
    meter.transcribed(facts, {"usage": usage | {"input_token_details": details}})
    found = meter.reading().usage
    assert found is not None
    # 13 at 2.50 and 9 at 10 USD per million tokens
    assert cost(found, priced("gpt-4o-transcribe")).nano == 13 * 2_500 + 9 * 10_000

    meter = TurnMeter("", "item_2", Heard())
    meter.transcribed(facts, {"usage": {"type": "duration", "seconds": 90}})
    found = meter.reading().usage
    assert found is not None
    # 0.006 USD a minute
    assert cost(found, priced("whisper-1")).nano == 9_000_000


# --- ceilings ------------------------------------------------------------------------------

MODELS = ["gpt-realtime", "gpt-realtime-2", "gpt-realtime-2.1-mini", "gpt-4o-realtime-preview"]


@st.composite
def usages(draw: st.DrawFn, window: int, output: int) -> dict[str, Any]:
    """Whatever a response can report within a window and an output limit."""
    text, audio, image = (draw(st.integers(0, window // 3)) for _ in range(3))
    cached = {
        "text_tokens": draw(st.integers(0, text)),
        "audio_tokens": draw(st.integers(0, audio)),
        "image_tokens": draw(st.integers(0, image)),
    }
    spoken = draw(st.integers(0, output))
    written = draw(st.integers(0, output - spoken))
    return {
        "input_tokens": text + audio + image,
        "output_tokens": spoken + written,
        "total_tokens": text + audio + image + spoken + written,
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": audio,
            "image_tokens": image,
            "cached_tokens": sum(cached.values()),
            "cached_tokens_details": cached,
        },
        "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
    }


@given(st.data())
def test_no_response_costs_more_than_its_hold(data: st.DataObject) -> None:
    price = priced(data.draw(st.sampled_from(MODELS)))
    limit = data.draw(st.none() | st.integers(1, 4_096))
    assert price.max_input_tokens is not None
    assert price.max_output_tokens is not None
    bound = ceiling(answer_facts(price.model, limit).size, price)

    reported = data.draw(usages(price.max_input_tokens, limit or price.max_output_tokens))

    assert cost(answered(reported), price).nano <= bound.nano
    assert bound.nano < 20 * NANO_PER_USD


@given(st.integers(0, SECONDS_HELD), st.booleans())
def test_no_transcription_costs_more_than_its_hold(seconds: int, by_tokens: bool) -> None:
    price = priced("gpt-4o-transcribe" if by_tokens else "whisper-1")
    bound = ceiling(transcript_facts(price.model, SECONDS_HELD).size, price)
    tokens = {"input_tokens": 16_000, "output_tokens": 2_000, "total_tokens": 18_000}
    usage = tokens if by_tokens else {"type": "duration", "seconds": seconds}
    meter = TurnMeter("", "item_1", Heard())
    meter.transcribed(transcript_facts(price.model, SECONDS_HELD), {"usage": usage})

    assert cost(meter.reading().usage or Usage(), price).nano <= bound.nano


@given(
    st.builds(
        Heard, st.integers(0, 10**7), st.integers(0, 10**9), st.integers(0, 10**9), st.booleans()
    ),
    st.integers(0, 10),
)
def test_no_estimate_costs_more_than_its_hold(heard: Heard, deltas: int) -> None:
    transcribed = heard.transcribed
    price = priced("whisper-1" if transcribed else "gpt-realtime")
    facts = transcript_facts("m", SECONDS_HELD) if transcribed else answer_facts("m", None)
    bound = ceiling(facts.size, price)
    meter = TurnMeter("", "r", heard)
    for _ in range(deltas):
        meter.feed(b'{"type":"response.output_audio.delta","delta":"' + b"A" * 100_000)
        meter.feed(b'{"type":"response.output_text.delta","delta":"' + b"A" * 1_000)

    reading = meter.reading()
    usage = cut_to(estimated_usage(facts, reading), bound.usage)

    assert reading.partial
    assert cost(usage, price).nano <= bound.nano
    assert deltas == 0 or usage.output_tokens > 0 or transcribed


# --- estimates -----------------------------------------------------------------------------


def test_an_estimate_follows_what_was_heard_and_said() -> None:
    heard = Heard(context_tokens=200, text_bytes=400, audio_bytes=96_000)  # two seconds
    meter = TurnMeter("gpt-realtime", "resp_1", heard)
    meter.feed(b"x" * (200 + 64_000))
    spoken = b'{"type":"response.output_audio.delta","delta":"'.ljust(200) + b"A" * 128_000
    meter.feed(spoken)  # 96,000 bytes: two seconds

    usage = meter.reading().usage

    assert usage is not None
    assert (usage.input_tokens, usage.input_audio_tokens) == (200 + 100 + 20, 20)
    assert (usage.output_tokens, usage.output_audio_tokens) == (16_000 + 40, 40)


def test_a_failed_turn_has_no_usage_unless_it_reports_one() -> None:
    meter = TurnMeter("gpt-realtime", "resp_1", Heard(100))
    error = {"error": {"type": "server_error", "code": "boom"}}
    meter.answered({"status": "failed", "status_details": error, "usage": None})
    assert (meter.reading().usage, meter.reading().error, meter.failed) == (None, "boom", True)

    meter = TurnMeter("gpt-realtime", "resp_1", Heard(100))
    meter.answered({"status": "failed", "status_details": error, "usage": USAGE})
    assert (meter.tokens, meter.failed) == (253, False)


# --- events --------------------------------------------------------------------------------


def test_client_events() -> None:
    event = client_event(b'{"type":"response.create","event_id":"e1","response":{}}')
    assert (event.kind, event.id) == ("response.create", "e1")
    assert client_event(b'{"type":"x","event_id":1}').id == ""


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"[]",
        b'"response.create"',
        b"{}",
        b'{"type":["response.create"]}',
        b'{"type":"a","type":"response.create"}',
        b'{"type":"a","b":{"max_output_tokens":1,"max_output_tokens":9}}',
        '{"type":"response.create"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"type":"a"} {"type":"response.create"}',
    ],
    ids=lambda message: repr(message[:24]),
)
def test_what_is_no_client_event(message: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        client_event(message)
    assert caught.value.code == "bad_request"


def test_an_escaped_type_is_seen_through() -> None:
    assert client_event(rb'{"ty\u0070e":"response.cre\u0061te"}').kind == "response.create"


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("session.created", True),
        ("session.updated", True),
        ("transcription_session.updated", True),
        ("response.created", True),
        ("response.done", True),
        ("input_audio_buffer.committed", True),
        ("conversation.item.input_audio_transcription.completed", True),
        ("conversation.item.input_audio_transcription.failed", True),
        ("error", True),
        ("conversation.item.input_audio_transcription.delta", False),
        ("response.output_audio.done", False),
        ("response.output_audio.delta", False),
        ("rate_limits.updated", False),
    ],
)
def test_server_events(kind: str, known: bool) -> None:
    event = {"event_id": "e", "type": kind}
    styles: list[dict[str, Any]] = [{}, {"indent": 1}, {"separators": (",", ":")}]
    for style in styles:
        message = json.dumps(event, **style)
        assert server_event(message.encode()) == (event if known else None)


def test_an_event_quoted_in_a_text_is_none() -> None:
    quoted = json.dumps({"type": "response.done"})
    event = {"type": "response.output_text.delta", "response_id": "r1", "delta": quoted}
    assert server_event(json.dumps(event).encode()) is None
    assert delta_of(json.dumps(event).encode()) == "r1"


@given(st.binary(max_size=200))
def test_nonsense_of_the_provider_never_raises(data: bytes) -> None:
    assert server_event(data) is None or isinstance(server_event(data), dict)
    broken = b'{"type":"response.done",' + data
    assert server_event(broken) is None or isinstance(server_event(broken), dict)
    assert delta_of(b'{"type":"response.x.delta"' + data) is None or b"response_id" in data


# --- sessions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "unsaid"),
        ({"max_output_tokens": 5}, 5),
        ({"max_response_output_tokens": 7}, 7),
        ({"max_output_tokens": 5, "max_response_output_tokens": 7}, 7),
        ({"max_output_tokens": "inf"}, None),
        ({"max_output_tokens": None}, None),
        ({"max_output_tokens": 5, "max_response_output_tokens": "inf"}, None),
        ({"max_output_tokens": 0}, None),
        ({"max_output_tokens": True}, None),
        ({"max_output_tokens": 5.0}, None),
    ],
)
def test_output_limits(fields: dict[str, Any], expected: Any) -> None:
    assert limit_in(fields) == expected


def test_which_limit_is_above() -> None:
    assert is_above(None, 5)
    assert is_above(6, 5)
    assert not is_above(5, 5)
    assert not is_above(5, None)
    assert not is_above(None, None)


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({}, None),
        ({"audio": {"input": {"transcription": None}}}, None),
        ({"audio": {"input": {"transcription": {"model": "whisper-1"}}}}, "whisper-1"),
        ({"input_audio_transcription": {"model": "whisper-1"}}, "whisper-1"),
        ({"audio": {"input": {"transcription": {"language": "de"}}}}, ""),
        ({"audio": [], "input_audio_transcription": 1}, None),
    ],
)
def test_what_transcribes(session: dict[str, Any], expected: Any) -> None:
    assert transcription_in(session) == expected


def test_what_a_hold_suffices_for() -> None:
    held = answer_facts("m", 100)
    assert suffices(held, answer_facts("m", 100))
    assert suffices(held, answer_facts("m", 10))
    assert not suffices(held, answer_facts("m", None))
    assert not suffices(held, answer_facts("n", 10))
    assert suffices(transcript_facts("m", 60), transcript_facts("m", 59))
    assert not suffices(transcript_facts("m", 60), transcript_facts("m", 61))
