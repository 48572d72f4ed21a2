"""Build a price table from the price map that ships inside the litellm wheel.

The map is read as data: importing litellm takes seconds and some 180 MB. What litellm's code adds
to its map when it prices a call is written into the entries here, so that a table is complete.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pricing.errors import SourceError
from pricing.names import canonical_provider
from pricing.units import IMAGE_IN, IMAGE_OUT, MAPS, SEARCH_SIZES

_Map = dict[str, dict[str, Any]]

# Map entries that are no models.
_NOT_MODELS = frozenset({"sample_spec", "fallback_generalizations"})

# Provider names of the map that mean one of our providers.
_PROVIDERS = {
    "azure_text": "azure",
    "fireworks_ai-embedding-models": "fireworks_ai",
    "text-completion-codestral": "codestral",
    "text-completion-inception": "inception",
    "text-completion-openai": "openai",
}

# What prices need besides everything with "cost" in its name.
_KEPT = frozenset(
    {
        "max_input_tokens",
        "max_output_tokens",
        "max_tokens",
        "mode",
        "off_peak_pricing",
        "provider_specific_entry",
        "regional_endpoint_uplift_multiplier",
        "regional_processing_uplift_multiplier_eu",
        "regional_processing_uplift_multiplier_us",
        "search_free_requests",
        "supports_reasoning",
        "tiered_pricing",
        "web_search_billing_unit",
    }
)
_MULTIPLIERS = ("us", "fast")  # of provider_specific_entry; the rest of it is settings

# USD per web search where the map has none: the rates in litellm's code (xAI, Gemini), and the
# published list price at providers where any model can search.
_SEARCH_USD = {
    "anthropic": "0.01",
    "azure": "0.01",
    "gemini": "0.035",
    "openai": "0.01",
    "vertex_ai": "0.035",
    "xai": "0.005",
}
_IMAGE_MODES = frozenset({"image_generation", "image_edit"})
_TOOL_MODES = frozenset({"chat", "responses"})
# OpenAI's models without reasoning search at $25 per thousand calls.
_SEARCH_USD_PLAIN_OPENAI = "0.025"

# USD of the other tools, from litellm's code and the map's entries `openai/container` and
# `azure/container`: a file search is $2.50 per thousand calls.
_FILE_SEARCH_USD = "0.0025"
_CODE_SESSION_USD = {"openai": "0.03", "azure": "0.033"}
_MAPS_USD = {"per_query": "0.014", "per_prompt": "0.025"}

# Images priced by size and quality have an entry for each, named "hd/1024-x-1024/dall-e-3" or
# "512-x-512/50-steps/...": they become variants of one entry.
_IMAGE_VARIANT = re.compile(
    r"(?:([a-z]+)/)?(\d+|max)-x-(\d+|max)/(?:(\w+-steps)/)?(?:bedrock/)?(.+)"
)
# A price per pixel of such an entry is a list price per image, divided: to this it is exact.
_IMAGE_USD_STEP = Decimal("0.0001")
# Keys whose last part is a variant: a video's resolution or an image's, a sampling interval.
_VARIANT_KEY = re.compile(
    r"(output_cost_per_second|output_cost_per_image)_(\d+p|\d+k|[\d.]+K|\d+)"
    r"|(input_cost_per_video_per_second)_above_(\d+s)_interval"
)

# The most output tokens of one image: 6,240 at high quality and 1536x1024, and 100 for each of
# three partial images; later models make 3840x2160, as many tokens per pixel taken.
_OUTPUT_IMAGE_TOKENS = (
    (re.compile(r"(?:gpt-image-1|gpt-image-1-mini|gpt-image-1\.5)(?:-\d{4}.*)?"), 6_540),
    (re.compile(r"(?:gpt-image-|chatgpt-image-).*"), 34_000),
)

# gpt-4o-mini counts 2,833 + 5,667 tokens per tile, and an image has at most 8 tiles.
_IMAGE_TOKENS = (
    (re.compile(r"(?:ft:)?gpt-4o-mini(?!-audio|-realtime|-transcribe|-tts).*"), 48_169),
)

_FIREWORKS_CACHE_READ_SHARE = Decimal("0.5")  # of the input price, where the map has none


def parse(data: bytes) -> dict[tuple[str, str], dict[str, Any]]:
    """The entries of a price map. Raises SourceError, and what `convert` raises."""
    try:
        raw = json.loads(data, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise SourceError("expected an object of models")
    return convert(raw)


def convert(raw: _Map) -> dict[tuple[str, str], dict[str, Any]]:
    """The map's entries by (provider, model), reduced to what prices need.

    A model listed twice, bare and with its provider's prefix, is one entry: the prefixed one's
    keys first (as litellm looks it up), unless only the bare one has a price other than zero.
    """
    named: dict[tuple[str, str], list[tuple[bool, dict[str, Any]]]] = {}
    images: dict[tuple[str, str], dict[str, str]] = {}
    for key, fields in raw.items():
        if key in _NOT_MODELS or not isinstance(fields, dict):
            continue
        name, prefixed = _name(key, fields)
        variant = _IMAGE_VARIANT.fullmatch(name[1])
        if variant is not None:
            base = images.setdefault((name[0], variant[5]), {})
            base.update(_image_variant(variant, fields))
            continue
        named.setdefault(name, []).append((prefixed, _reduce(fields)))
    for name in images:
        named.setdefault(name, [(False, {"mode": "image_generation"})])
    entries = {}
    for (provider, model), twins in named.items():
        twins.sort(key=lambda twin: (_costs_nothing(twin[1]), not twin[0]))
        merged: dict[str, Any] = {}
        for _, entry in reversed(twins):
            merged.update(entry)
        entry = _complete(provider, model, merged)
        entries[provider, model] = entry | images.get((provider, model), {})
    return entries


def _image_variant(variant: re.Match[str], fields: Mapping[str, Any]) -> dict[str, str]:
    """The price of one image of this quality and size."""
    quality, width, height, steps, _ = variant.groups()
    label = "/".join(part for part in (quality, f"{width}x{height}", steps) if part)
    usd = fields.get(IMAGE_OUT) or fields.get(IMAGE_IN)
    if not usd and "max" not in (width, height):
        pixels = Decimal(int(width) * int(height))
        usd = (pixels * Decimal(fields.get("input_cost_per_pixel") or 0)).quantize(_IMAGE_USD_STEP)
    return {f"{IMAGE_OUT}@{label}": _exact(IMAGE_OUT, usd)} if usd else {}


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a price")


def _name(key: str, fields: Mapping[str, Any]) -> tuple[tuple[str, str], bool]:
    own = str(fields["litellm_provider"])
    provider = "vertex_ai" if own.startswith("vertex_ai-") else _PROVIDERS.get(own, own)
    provider = canonical_provider(provider)
    for prefix in (f"{provider}/", f"{own}/"):
        if key.startswith(prefix):
            return (provider, key.removeprefix(prefix)), True
    return (provider, key), False


def _reduce(fields: Mapping[str, Any]) -> dict[str, Any]:
    entry = {
        _unit_key(key): _exact(key, value)
        for key, value in fields.items()
        if ("cost" in key or key in _KEPT) and value is not None
    }
    if fields["litellm_provider"] == "fireworks_ai" and "input_cost_per_token" in entry:
        share = Decimal(entry["input_cost_per_token"]) * _FIREWORKS_CACHE_READ_SHARE
        entry.setdefault("cache_read_input_token_cost", format(share.normalize(), "f"))
    multipliers = entry.pop("provider_specific_entry", {})
    multipliers = {name: multipliers[name] for name in _MULTIPLIERS if name in multipliers}
    if multipliers:
        entry["provider_specific_entry"] = multipliers
    return entry


def _exact(key: str, value: Any) -> Any:
    """JSON-ready without floats: prices as decimal text, counts as integers."""
    if isinstance(value, dict):
        return {name: _exact(f"{key}.{name}", part) for name, part in value.items()}
    if isinstance(value, list):
        return [_exact(key, part) for part in value]
    if isinstance(value, float):
        raise TypeError(f"{key}: {value} is a float, so its exact price is lost")
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return value
    if any(word in key for word in ("cost", "multiplier", "provider_specific_entry")):
        return format(Decimal(value).normalize(), "f")
    if value != int(value):
        raise ValueError(f"{key}: {value} is not a whole number")
    return int(value)


def _costs_nothing(entry: Mapping[str, Any]) -> bool:
    return not any(
        isinstance(value, str) and "cost" in key and Decimal(value) for key, value in entry.items()
    )


def _complete(provider: str, model: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Write into an entry what the map leaves to the code that reads it."""
    if entry.get("mode") in _IMAGE_MODES and IMAGE_IN in entry and IMAGE_OUT not in entry:
        entry[IMAGE_OUT] = entry.pop(IMAGE_IN)  # the price of one made, as litellm reads it
    if entry.get("mode") in _TOOL_MODES and entry.get("input_cost_per_token"):
        _complete_tools(provider, model, entry)
    bare = model.rpartition("/")[2]
    if provider in ("openai", "azure", "azure_ai"):
        counts = {
            "max_tokens_per_image": _first_match(_IMAGE_TOKENS, bare),
            "max_tokens_per_output_image": _first_match(_OUTPUT_IMAGE_TOKENS, bare),
        }
        entry |= {key: tokens for key, tokens in counts.items() if tokens}
    return entry


def _complete_tools(provider: str, model: str, entry: dict[str, Any]) -> None:
    if provider in _SEARCH_USD and SEARCH_SIZES not in entry:
        usd = _SEARCH_USD[provider]
        if provider in _CODE_SESSION_USD and not entry.get("supports_reasoning"):
            usd = _SEARCH_USD_PLAIN_OPENAI
        entry[SEARCH_SIZES] = _all_sizes(usd)
    if provider in _CODE_SESSION_USD:
        entry.setdefault("code_interpreter_cost_per_session", _CODE_SESSION_USD[provider])
        entry.setdefault("file_search_cost_per_call", _FILE_SEARCH_USD)
    if provider in ("gemini", "vertex_ai") and "claude" not in model:
        unit = entry.get("web_search_billing_unit", "per_prompt")
        entry.setdefault(MAPS, _MAPS_USD[unit])


def _first_match(rules: tuple[tuple[re.Pattern[str], int], ...], model: str) -> int:
    return next((tokens for pattern, tokens in rules if pattern.fullmatch(model)), 0)


def _unit_key(key: str) -> str:
    found = _VARIANT_KEY.fullmatch(key)
    if found is None:
        return key
    return f"{found[1]}@{found[2]}" if found[1] else f"{found[3]}@{found[4]}"


def _all_sizes(usd: str) -> dict[str, str]:
    return {f"search_context_size_{size}": usd for size in ("high", "low", "medium")}
