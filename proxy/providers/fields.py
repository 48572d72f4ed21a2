"""Reading fields of provider JSON, which may hold anything: nonsense reads as absent."""

import json
import re
from decimal import Decimal

from pricing.money import nano_from_usd
from pricing.usage import Usage

USD_MAX = 10**6  # no call costs this much
COUNT_MAX = 10**12  # no call uses this many tokens; above it the number is nonsense
MODEL_CHARS_MAX = 256
_decoder = json.JSONDecoder()


def as_dict(value: object) -> dict[str, object]:
    return value if type(value) is dict else {}


def as_list(value: object) -> list[object]:
    return value if type(value) is list else []


def as_text(value: object) -> str:
    return value if type(value) is str else ""


def as_count(value: object) -> int:
    """A token count; 0 for anything that is not one."""
    if type(value) is float and value == value // 1:
        value = int(value)
    return value if type(value) is int and 0 <= value <= COUNT_MAX else 0


def first_count(fields: dict[str, object], *names: str) -> int | None:
    """The first of these fields that is a number; None if none is (reported 0 is not None)."""
    for name in names:
        value = fields.get(name)
        if type(value) is int or type(value) is float:
            return as_count(value)
    return None


def first_dict(fields: dict[str, object], *names: str) -> dict[str, object]:
    """The first of these fields that is an object; {} if none is."""
    for name in names:
        value = fields.get(name)
        if type(value) is dict:
            return value
    return {}


def nano_from_json(value: object) -> int | None:
    """The USD amount of a call, a JSON number, to nano-USD; None if it is not one."""
    if (type(value) is int or type(value) is float) and 0 <= value <= USD_MAX:
        return nano_from_usd(Decimal(repr(value)))
    return None


def error_name(error: object) -> str:
    """A low-cardinality name of an error object (or string) in a reply."""
    if type(error) is dict:
        for key in ("code", "type", "status"):
            value = error.get(key)
            if type(value) is str and value:
                return value[:64]
        code = error.get("code")
        return str(code) if type(code) is int else "error"
    return "error" if error else ""


def object_after(data: bytes, key: bytes) -> dict[str, object]:
    """The JSON object behind the last `"key":` in a fragment of JSON; {} if there is none.

    For replies too large to hold: usage stands at their end.
    """
    at = len(data)
    while (at := data.rfind(b'"' + key + b'"', 0, at)) >= 0:
        brace = re.compile(rb"\s*:\s*(?=\{)").match(data, at + len(key) + 2)
        if brace is not None:
            tail = data[brace.end() :].decode("utf-8", "replace")
            try:
                return as_dict(_decoder.raw_decode(tail)[0])
            except (ValueError, RecursionError):
                pass
    return {}


def text_after(data: bytes, key: bytes) -> str:
    """The string behind the first `"key":` in a fragment of JSON; "" if there is none."""
    match = re.search(rb'"' + key + rb'"\s*:\s*"([^"\\]{1,256})"', data)
    return match.group(1).decode("utf-8", "replace") if match else ""


def consistent(usage: Usage) -> Usage:
    """Clamp parts to their whole, in place, so that no disjoint bucket can be negative."""
    usage.cache_read_tokens = min(usage.cache_read_tokens, usage.input_tokens)
    fresh = usage.input_tokens - usage.cache_read_tokens
    usage.cache_write_tokens = min(usage.cache_write_tokens, fresh)
    usage.cache_write_1h_tokens = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    usage.reasoning_tokens = min(usage.reasoning_tokens, usage.output_tokens)
    rest = usage.output_tokens - usage.reasoning_tokens
    usage.output_audio_tokens = min(usage.output_audio_tokens, rest)
    usage.output_image_tokens = min(usage.output_image_tokens, rest - usage.output_audio_tokens)
    if usage.input_audio_tokens or usage.input_image_tokens or usage.input_video_tokens:
        _consistent_media(usage, fresh - usage.cache_write_tokens)
    else:
        usage.cache_read_audio_tokens = usage.cache_read_image_tokens = 0
    return usage


def _consistent_media(usage: Usage, fresh: int) -> None:
    """Audio and images beyond the uncached input must have come from the cache."""
    cached = usage.cache_read_tokens
    usage.input_video_tokens = min(usage.input_video_tokens, fresh)
    fresh -= usage.input_video_tokens
    audio = usage.input_audio_tokens = min(usage.input_audio_tokens, fresh + cached)
    from_cache = min(usage.cache_read_audio_tokens, audio, cached)
    usage.cache_read_audio_tokens = from_cache = max(from_cache, audio - fresh)
    fresh -= audio - from_cache
    cached -= from_cache
    image = usage.input_image_tokens = min(usage.input_image_tokens, fresh + cached)
    from_cache = min(usage.cache_read_image_tokens, image, cached)
    usage.cache_read_image_tokens = max(from_cache, image - fresh)
