"""What bounds a request for images or audio: OpenAI's routes, and hosts that have them too.

Text counts by its bytes; images and audio by number and length, since the bytes of a file say
nothing of tokens. Requests are JSON objects or forms.
"""

import re

from pricing.usage import RequestSize, Usage
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Route
from proxy.providers.fields import as_list, as_text
from proxy.providers.forms import File, Form, is_form, parse_form

BYTES_PER_TOKEN = 4
# Speech is coded at 8 kbit/s and more, silence at less: what a second takes at the least.
AUDIO_BYTES_PER_S_MIN = 125
WAV_BYTES_PER_S_MIN = 1_000
AUDIO_BYTES_PER_S_USUAL = 16_000  # 128 kbit/s
# Models that are billed for generated audio by tokens: 21 a second, and a second for a character
# is more than the slowest speech takes; what is usual is 15 characters a second.
SPEECH_TOKENS_PER_CHARACTER_MAX = 25
SPEECH_TOKENS_MORE = 1_250
SPEECH_CHARACTERS_PER_10_TOKENS = 7
GPT_4O_SECONDS_MAX = 1_500  # of one recording, by these models' own limit

_by_characters = re.compile(r"(?:^|/)(?:tts-1|voxtral-|orpheus|playai-tts)").search
# Of GPT image models alone: without a model such a request does not mean the old default.
_NEWER_IMAGE_OPTIONS = ("background", "moderation", "output_format", "partial_images", "stream")
DEFAULT_IMAGE_MODEL = "dall-e-2"


# --- images --------------------------------------------------------------------------------


def image_facts(route: Route, path: str, body: bytes) -> Facts:
    """generations, edits and variations."""
    form = parse_form(body) if is_form(body) else None
    fields = form.fields if form else rq.parse_body(body)
    model = rq.checked_model(_image_model(fields))
    count = rq.checked_count(fields, "n") or 1
    size = RequestSize(_text_bytes(fields), inline_images=_images_in(fields, form))
    unit = image_unit(model, fields)
    size.units = {unit: count}
    if size.inline_images:
        size.units["input_images"] = size.inline_images
    stream = fields.get("stream") in (True, "true")
    facts = Facts(route, model, stream, size, fields, clampable=False)
    facts.estimate = Usage(units=dict(size.units))
    return facts


def _image_model(fields: dict[str, object]) -> object:
    model = fields.get("model")
    if model is None and not any(name in fields for name in _NEWER_IMAGE_OPTIONS):
        return DEFAULT_IMAGE_MODEL
    return model


def _images_in(fields: dict[str, object], form: Form | None) -> int:
    """Images sent along: files of a form, or entries of a JSON request."""
    if form is not None:
        return len(form.files)
    return len(as_list(fields.get("images"))) + ("image" in fields) + ("mask" in fields)


def _text_bytes(fields: dict[str, object]) -> int:
    return sum(
        len(value.encode("utf-8", "replace"))
        for name, value in fields.items()
        if type(value) is str and name not in ("image", "mask")
    )


def image_unit(model: str, fields: dict[str, object]) -> str:
    """The unit one image made is priced by: with quality and size where they have a price."""
    quality, size = as_text(fields.get("quality")), as_text(fields.get("size"))
    if model.startswith("dall-e-"):
        size = size or "1024x1024"
        quality = (quality or "standard") if model == "dall-e-3" else ""
    variant = "/".join(part for part in (quality, size) if part and part != "auto")
    return f"images@{variant}" if variant else "images"


# --- speech --------------------------------------------------------------------------------


def speech_facts(route: Route, path: str, body: bytes) -> Facts:
    """Text to audio: characters, or tokens where the model is billed by those."""
    parsed = rq.parse_body(body)
    model = rq.checked_model(parsed.get("model"))
    text = parsed.get("input")
    if type(text) is not str:
        raise rq.bad("`input` is missing or not a string: send the text to speak")
    spoken, said = len(text), len((text + as_text(parsed.get("instructions"))).encode())
    size = RequestSize(said, units={"characters": spoken})
    stream = parsed.get("stream_format") == "sse" or parsed.get("stream") is True
    facts = Facts(route, model, stream, size, parsed, clampable=False)
    if _by_characters(model):
        size.generates = False
        facts.estimate = Usage(units={"characters": spoken})
        return facts
    size.output_limit = SPEECH_TOKENS_MORE + SPEECH_TOKENS_PER_CHARACTER_MAX * spoken
    audio = -(-spoken * 10 // SPEECH_CHARACTERS_PER_10_TOKENS)
    facts.estimate = Usage(
        -(-said // BYTES_PER_TOKEN), audio, output_audio_tokens=audio, units={"characters": spoken}
    )
    return facts


def counts_characters(facts: Facts) -> bool:
    """Whether the request alone says what the call costs."""
    return not facts.size.generates


# --- transcription -------------------------------------------------------------------------


def transcription_facts(route: Route, path: str, body: bytes) -> Facts:
    """Audio to text, in its own language or translated."""
    if not is_form(body):
        raise rq.bad("send the audio as a form (multipart/form-data) with `file` and `model`")
    form = parse_form(body)
    files = [file for file in form.files if file.name == "file"]
    if len(files) != 1 or not files[0].size:
        raise rq.bad("`file` is missing: send the audio itself, since its length bounds the cost")
    model = rq.checked_model(form.fields.get("model"))
    seconds_max, seconds = audio_length(body, files[0])
    if model.startswith("gpt-4o-"):
        seconds_max = min(seconds_max, GPT_4O_SECONDS_MAX)
    size = RequestSize(form.text_bytes, windowed=True, units={"seconds": seconds_max})
    stream = form.fields.get("stream") == "true"
    facts = Facts(route, model, stream, size, form.fields, clampable=False)
    facts.estimate = Usage(units={"seconds": seconds})
    return facts


def audio_length(body: bytes, file: File) -> tuple[int, int]:
    """(the most seconds a file can last, those it is likely to)."""
    if body[file.start : file.start + 4] == b"RIFF":
        rate = int.from_bytes(body[file.start + 28 : file.start + 32], "little")
        least, usual = WAV_BYTES_PER_S_MIN, max(rate, WAV_BYTES_PER_S_MIN)
    else:
        least, usual = AUDIO_BYTES_PER_S_MIN, AUDIO_BYTES_PER_S_USUAL
    return -(-file.size // least), -(-file.size // usual)
