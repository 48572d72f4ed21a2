"""Images, speech and transcripts: what bounds the request, what the reply is billed for."""

import json
from typing import Any

import pytest
from hypothesis import given

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts, Reading
from proxy.providers.forms import File
from proxy.providers.media import audio_length
from proxy.providers.openai import OpenAI
from proxy.providers.registry import dialect
from tests.cuts import cut, offsets
from tests.proxy.providers.test_forms import form, part

OPENAI = OpenAI()
IMAGES, EDITS = "/v1/images/generations", "/v1/images/edits"
SPEECH, TRANSCRIBE = "/v1/audio/speech", "/v1/audio/transcriptions"
SSE = "text/event-stream"


def facts_of(path: str, body: object, wire: Any = OPENAI) -> Facts:
    route = wire.route("POST", path)
    assert route is not None
    assert route.kind == "metered"
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    facts: Facts = wire.facts(route, path, b"", raw)
    return facts


def read(facts: Facts, reply: bytes, kind: str = "application/json", status: int = 200) -> Reading:
    meter = OPENAI.meter(facts, status=status, content_type=kind, inject_usage=True)
    assert meter.feed(reply) + meter.finish() == reply
    return meter.reading()


def as_json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


# --- images --------------------------------------------------------------------------------


def an_image(**fields: object) -> dict[str, object]:
    return {"model": "gpt-image-1", "prompt": "a toll house", **fields}


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({}, "images"),
        ({"quality": "auto", "size": "auto"}, "images"),
        ({"quality": "high", "size": "1024x1536"}, "images@high/1024x1536"),
        ({"size": "1536x1024"}, "images@1536x1024"),
        ({"model": "dall-e-2"}, "images@1024x1024"),
        ({"model": "dall-e-2", "size": "256x256", "quality": "standard"}, "images@256x256"),
        ({"model": "dall-e-3"}, "images@standard/1024x1024"),
        ({"model": "dall-e-3", "quality": "hd", "size": "1024x1792"}, "images@hd/1024x1792"),
    ],
)
def test_images_are_priced_by_quality_and_size(fields: dict[str, object], unit: str) -> None:
    facts = facts_of(IMAGES, an_image(n=3, **fields))
    assert facts.size.units == {unit: 3}
    assert not facts.clampable
    reading = read(facts, as_json(created=1, data=[{"url": "x"}, {"url": "y"}]))
    assert reading.usage == Usage(units={unit: 2})
    assert reading.complete


def test_the_model_that_is_meant_without_one() -> None:
    assert facts_of(IMAGES, {"prompt": "x"}).model == "dall-e-2"
    with pytest.raises(Refusal, match="model"):
        facts_of(IMAGES, {"prompt": "x", "background": "transparent"})


def test_image_tokens() -> None:
    usage = {
        "total_tokens": 1100,
        "input_tokens": 100,
        "output_tokens": 1000,
        "input_tokens_details": {"text_tokens": 60, "image_tokens": 40},
    }
    facts = facts_of(IMAGES, an_image())
    expected = Usage(
        100, 1000, input_image_tokens=40, output_image_tokens=1000, units={"images": 1}
    )
    assert read(facts, as_json(data=[{"b64_json": "AAAA"}], usage=usage)).usage == expected
    details = {"output_tokens_details": {"image_tokens": 900, "text_tokens": 100}}
    whole = as_json(data=[{"b64_json": "AAAA"}], usage=usage | details)
    read_usage = read(facts, whole).usage
    assert read_usage is not None
    assert read_usage.output_image_tokens == 900


def test_a_large_image_is_read_from_its_end() -> None:
    usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20}
    reply = as_json(data=[{"b64_json": "A" * 2**22}], usage=usage)
    reading = read(facts_of(IMAGES, an_image(n=2)), reply)
    assert reading.usage == Usage(10, 20, output_image_tokens=20, units={"images": 2})


def test_images_sent_along() -> None:
    sent = [{"image_url": "data:image/png;base64,AA"}, {"file_id": "f"}]
    size = facts_of(EDITS, an_image(images=sent, mask={"file_id": "m"})).size
    assert (size.inline_images, size.units) == (3, {"images": 1, "input_images": 3})
    body = form(
        part("model", b"gpt-image-1"),
        part("prompt", b"green"),
        part("n", b"2"),
        part("image[]", b"\x89PNG" * 9_999, file=True),
        part("image[]", b"\x89PNG", file=True),
    )
    size = facts_of(EDITS, body).size
    assert (size.inline_images, size.units) == (2, {"images": 2, "input_images": 2})
    assert size.body_bytes < 50  # pixels count as images, not as text


def test_an_edited_image_is_billed_twice_at_xai() -> None:
    body = {"model": "grok-imagine-image", "prompt": "x", "images": [{"url": "data:"}], "n": 2}
    facts = facts_of(EDITS, body, dialect("xai"))
    assert facts.size.units == {"images": 3}
    reading = read(facts, as_json(data=[{}, {}], usage={"cost_in_usd_ticks": 700_000_000}))
    assert reading.usage is not None
    assert reading.usage.provider_cost_nano == 70_000_000
    assert reading.usage.units["images"] == 2


STREAM = (
    b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image",'
    b'"b64_json":"AAAA","partial_image_index":0}\n\n'
    b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"B",'
    b'"usage":{"total_tokens":30,"input_tokens":10,"output_tokens":20}}\n\n'
)


@given(offsets())
def test_a_stream_of_images(at: list[int]) -> None:
    facts = facts_of(IMAGES, an_image(stream=True))
    meter = OPENAI.meter(facts, status=200, content_type=SSE, inject_usage=True)
    assert b"".join(meter.feed(piece) for piece in cut(STREAM, at)) + meter.finish() == STREAM
    assert meter.ended
    reading = meter.reading()
    assert reading.complete
    assert reading.usage == Usage(10, 20, output_image_tokens=20, units={"images": 1})


def test_a_refused_image_has_no_usage() -> None:
    reply = as_json(error={"message": "no", "code": "moderation_blocked"})
    reading = read(facts_of(IMAGES, an_image()), reply, status=400)
    assert (reading.usage, reading.error) == (None, "moderation_blocked")


# --- speech --------------------------------------------------------------------------------


def test_characters_are_those_of_the_request() -> None:
    facts = facts_of(SPEECH, {"model": "tts-1", "input": "Zölle", "voice": "alloy"})
    assert facts.size.units == {"characters": 5}
    assert not facts.size.generates
    reading = read(facts, b"\xff\xfb\x90", "audio/mpeg")
    assert (reading.usage, reading.complete) == (Usage(units={"characters": 5}), True)
    assert read(facts, as_json(error={"code": "x"}), status=400).usage is None
    reading = read(facts, as_json(audio_data="AAAA"))  # Mistral's reply
    assert reading.usage == Usage(units={"characters": 5})


def test_speech_by_tokens() -> None:
    facts = facts_of(
        SPEECH, {"model": "gpt-4o-mini-tts", "input": "x" * 70, "stream_format": "sse"}
    )
    assert facts.size.output_limit == 1_250 + 25 * 70
    assert facts.estimate == Usage(18, 100, output_audio_tokens=100, units={"characters": 70})
    assert read(facts, b"\xff\xfb\x90", "audio/mpeg").usage is None
    done = b'data: {"type":"speech.audio.done","usage":{"input_tokens":9,"output_tokens":90,'
    reading = read(facts, done + b'"total_tokens":99}}\n\n', SSE)
    assert reading.usage == Usage(9, 90, output_audio_tokens=90)
    assert reading.complete


def test_speech_needs_its_text() -> None:
    with pytest.raises(Refusal, match="input"):
        facts_of(SPEECH, {"model": "tts-1"})


# --- transcription -------------------------------------------------------------------------


def wav(seconds: int, byte_rate: int = 32_000) -> bytes:
    head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0" + byte_rate.to_bytes(4, "little")
    return (head + b"\0" * 12).ljust(seconds * byte_rate, b"\0")


def a_recording(audio: bytes, **fields: str) -> bytes:
    texts = {"model": "whisper-1", **fields}
    return form(
        *(part(name, text.encode()) for name, text in texts.items()),
        part("file", audio, file=True),
    )


def test_the_length_of_audio() -> None:
    facts = facts_of(TRANSCRIBE, a_recording(wav(10)))
    assert facts.size.units == {"seconds": 320}
    assert facts.size.windowed
    assert facts.estimate == Usage(units={"seconds": 10})
    long = a_recording(b"\xff\xfb" * 2**20, model="gpt-4o-transcribe")
    assert facts_of(TRANSCRIBE, long).size.units == {"seconds": 1_500}
    facts = facts_of(TRANSCRIBE, a_recording(b"\xff\xfb" * 8_000))
    assert facts.size.units == {"seconds": 128}
    assert facts.estimate == Usage(units={"seconds": 1})
    assert audio_length(b"RIFF", File("file", 0, 4)) == (1, 1)


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        (
            {
                "text": "hm",
                "usage": {
                    "type": "tokens",
                    "total_tokens": 6,
                    "input_tokens": 1,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": 1},
                    "output_tokens": 5,
                },
            },
            Usage(1, 5, input_audio_tokens=1),
        ),
        ({"text": "hm", "usage": {"type": "duration", "seconds": 9}}, Usage(units={"seconds": 9})),
        ({"text": "hm", "duration": 8.47}, Usage(units={"milliseconds": 8470})),
        ({"text": "hm", "duration": "8.47"}, Usage(units={"milliseconds": 8470})),
        (
            {
                "text": "hm",
                "model": "voxtral-mini-2507",
                "usage": {
                    "prompt_audio_seconds": 203,
                    "prompt_tokens": 4,
                    "completion_tokens": 635,
                    "total_tokens": 639,
                },
            },
            Usage(4, 635, units={"seconds": 203}),
        ),
        ({"text": "hm"}, None),
        ({"text": "hm", "duration": "long"}, None),
    ],
)
def test_what_a_transcript_is_billed_for(reply: dict[str, object], usage: Usage | None) -> None:
    facts = facts_of(TRANSCRIBE, a_recording(wav(1)))
    assert read(facts, json.dumps(reply).encode()).usage == usage
    assert read(facts, b"just text", "text/plain").usage is None


def test_a_streamed_transcript() -> None:
    facts = facts_of(TRANSCRIBE, a_recording(wav(1), stream="true"))
    assert facts.stream
    done = {"type": "transcript.text.done", "text": "hm"}
    counts = {"type": "tokens", "input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    delta = b'data: {"type":"transcript.text.delta","delta":"transcript.text.done"}\n\n'
    meter = OPENAI.meter(facts, status=200, content_type=SSE, inject_usage=True)
    meter.feed(delta)
    assert not meter.ended
    meter.feed(b"data: " + json.dumps({**done, "usage": counts}).encode() + b"\n\n")
    assert meter.ended
    assert meter.reading().usage == Usage(7, 2)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model":"whisper-1","url":"https://x"}', "as a form"),
        (form(part("model", b"whisper-1")), "file"),
        (form(part("model", b"whisper-1"), part("file", b"", file=True)), "file"),
        (form(part("file", b"RIFF", file=True)), "model"),
    ],
)
def test_audio_that_cannot_be_bounded_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        facts_of(TRANSCRIBE, body)
