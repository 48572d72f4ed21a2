"""Build entries from the price data of genai-prices: its `data.py`, or its JSON of the same shape.

It says since when each price applies, and keeps models that providers have retired. A model is
found there by clauses on its name; here it is listed under the names that are whole in those
clauses, and `versions` says which suffixes (dates, numbers) of such a name mean it as well.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pricing.names import VERSION_SHAPES, canonical_provider
from pricing.sources.genai_data import read

_Block = Mapping[str, Any]  # price key -> Decimal, or {"base", "tiers"}

# Its names of providers that are ours by another name.
_PROVIDERS = {
    "aws": "bedrock",
    "github-copilot": "github_copilot",
    "google": "gemini",
    "moonshotai": "moonshot",
    "together": "together_ai",
    "x-ai": "xai",
}

# Its price keys: ours, and how many units its price is for.
_MILLION, _THOUSAND, _HOUR = Decimal(10**6), Decimal(10**3), Decimal(3_600)
_KEYS = {
    "input_mtok": ("input_cost_per_token", _MILLION),
    "output_mtok": ("output_cost_per_token", _MILLION),
    "cache_read_mtok": ("cache_read_input_token_cost", _MILLION),
    "cache_write_mtok": ("cache_creation_input_token_cost", _MILLION),
    "cache_write_1h_mtok": ("cache_creation_input_token_cost_above_1hr", _MILLION),
    "cache_audio_read_mtok": ("cache_read_input_audio_token_cost", _MILLION),
    "cache_image_read_mtok": ("cache_read_input_image_token_cost", _MILLION),
    "input_audio_mtok": ("input_cost_per_audio_token", _MILLION),
    "input_image_mtok": ("input_cost_per_image_token", _MILLION),
    "input_video_mtok": ("input_cost_per_video_token", _MILLION),
    "output_audio_mtok": ("output_cost_per_audio_token", _MILLION),
    "output_image_mtok": ("output_cost_per_image_token", _MILLION),
    "output_reasoning_mtok": ("output_cost_per_reasoning_token", _MILLION),
    "output_citation_mtok": ("citation_cost_per_token", _MILLION),
    "input_mchars": ("input_cost_per_character", _MILLION),
    "input_document_kpages": ("ocr_cost_per_page", _THOUSAND),
    "input_annotated_document_kpages": ("annotation_cost_per_page", _THOUSAND),
    "input_text_messages_kcount": ("input_cost_per_text_message", _THOUSAND),
    "requests_kcount": ("input_cost_per_request", _THOUSAND),
    "rerank_searches_kcount": ("input_cost_per_query", _THOUSAND),
    "storage_searches_kcount": ("file_search_cost_per_call", _THOUSAND),
    "web_searches_kcount": ("web_search_cost_per_query", _THOUSAND),
    "audio_hours": ("input_cost_per_second", _HOUR),
    "input_audio_hours": ("input_cost_per_second", _HOUR),
    "output_audio_hours": ("output_cost_per_second", _HOUR),
}
_EXACT = Decimal("1e-18")  # a price by the hour has no exact one by the second

# Which variant of a price is which service tier's here.
_VARIANTS = {
    ("processing", "batch"): "_batches",
    ("service_tier", "flex"): "_flex",
    ("service_tier", "priority"): "_priority",
}

# Modes are not said: the first of these keys an entry has tells.
_MODES = (
    ("output_cost_per_token", "chat"),
    ("output_cost_per_image_token", "image_generation"),
    ("input_cost_per_token", "embedding"),
    ("input_cost_per_second", "audio_transcription"),
    ("input_cost_per_character", "audio_speech"),
    ("ocr_cost_per_page", "ocr"),
    ("input_cost_per_query", "rerank"),
)


def parse(data: bytes, day: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The entries, with the prices of `day` (ISO date) as the standing ones. Raises SourceError,
    ValueError, TypeError, KeyError or ArithmeticError."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for provider in read(data):
        name = canonical_provider(_PROVIDERS.get(provider["id"], provider["id"]))
        finder = _Finder(provider["models"])
        for number, model in enumerate(provider["models"]):
            entry = _entry(model, day)
            if entry is not None:
                for each, versions in _names(model, number, finder):
                    entries.setdefault((name, each), entry | versions)
    return entries


# --- prices ----------------------------------------------------------------------------------


def _entry(model: Mapping[str, Any], day: str) -> dict[str, Any] | None:
    """None: it has no price in a unit known here."""
    dated, timed = _periods(model["prices"])
    standing = max((start for start in dated if start <= day), default=min(dated))
    prices = _prices(dated[standing])
    mode = next((mode for key, mode in _MODES if key in prices), None)
    if mode is None:
        return None
    entry: dict[str, Any] = {"mode": mode}
    if model.get("context_window"):  # it bounds the output as well
        entry |= dict.fromkeys(("max_input_tokens", "max_tokens"), int(model["context_window"]))
    for variant in model.get("price_variants") or ():
        prices |= _variant(variant, prices, day)
    entry |= _off_peak(prices, timed) if timed else prices
    parts = _dated_parts(dated, standing)
    return entry | ({"dated_pricing": parts} if parts else {})


def _periods(prices: Any) -> tuple[dict[str, _Block], list[tuple[_Block, _Block]]]:
    """Blocks by the day they start, and (time of day, block)."""
    if isinstance(prices, Mapping):
        return {"": prices}, []
    dated: dict[str, _Block] = {}
    timed = []
    for each in prices:
        constraint = each.get("constraint") or {}
        if "start_time" in constraint:
            timed.append((constraint, each["prices"]))
        else:
            dated[str(constraint.get("start_date", ""))] = each["prices"]
    return dated, timed


def _prices(block: _Block) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in block.items():
        if key not in _KEYS or value is None:
            continue
        ours, per = _KEYS[key]
        if isinstance(value, Mapping):
            for tier in value["tiers"]:
                found[f"{ours}_above_{_size(int(tier['start']))}_tokens"] = _usd(tier["price"], per)
            value = value["base"]
        found[ours] = _usd(value, per)
    return found


def _size(tokens: int) -> str:
    return f"{tokens // 1000}k" if tokens % 1000 == 0 else str(tokens)


def _usd(price: Decimal | int, per: Decimal) -> str:
    if isinstance(price, float):
        raise TypeError(f"{price} is a float, so its exact price is lost")
    usd = Decimal(price) / per
    usd = usd.quantize(_EXACT) if per is _HOUR else usd
    return format(usd.normalize(), "f")


def _variant(variant: Mapping[str, Any], standard: Mapping[str, str], day: str) -> dict[str, Any]:
    """Prices of a service tier by their keys, or of a speed as a multiplier."""
    constraint = variant.get("constraint") or {}
    if str(constraint.get("start_date", "")) > day or len(variant["when"]) != 1:
        return {}
    (when,) = variant["when"].items()
    prices = _prices(variant["prices"])
    if when in _VARIANTS:
        return {key + _VARIANTS[when]: usd for key, usd in prices.items()}
    if when == ("speed", "fast"):
        ratios = {Decimal(usd) / Decimal(standard[key]) for key, usd in prices.items()}
        if len(ratios) == 1:
            return {"provider_specific_entry": {"fast": format(ratios.pop().normalize(), "f")}}
    return {}


def _dated_parts(dated: Mapping[str, _Block], standing: str) -> list[dict[str, Any]]:
    days = sorted(dated)
    parts: list[dict[str, Any]] = []
    for start, end in zip(days, [*days[1:], ""], strict=True):
        if start < standing:
            parts.append({"until": end, **_prices(dated[start])})
        elif start > standing:
            parts.append({"from": start, **_prices(dated[start])})
    return parts


def _off_peak(
    quiet: dict[str, Any], timed: Sequence[tuple[Mapping[str, Any], _Block]]
) -> dict[str, Any]:
    """Its standing prices are those of the quiet hours, ours are those of the busy ones."""
    busy = _prices(timed[0][1])
    if any(_prices(block) != busy for _, block in timed) or busy.keys() != quiet.keys():
        return busy  # nothing is said for certain but the dearer price
    spans = sorted((str(span["start_time"])[:5], str(span["end_time"])[:5]) for span, _ in timed)
    starts = [*(start for start, _ in spans[1:]), spans[0][0]]
    hours = [f"{end}-{start}" for (_, end), start in zip(spans, starts, strict=True)]
    return busy | {"off_peak_pricing": {"hours_utc": hours, **quiet}}


# --- names -----------------------------------------------------------------------------------


def _names(
    model: Mapping[str, Any], number: int, finder: "_Finder"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The names that are this model there, and the suffixes that may follow each."""
    for name in dict.fromkeys([str(model["id"]).lower(), *_literals(model["match"])]):
        if not name or finder.find(name) != number:
            continue
        shapes = [
            shape
            for shape, sample in VERSION_SHAPES.items()
            if finder.find(name + sample) == number
        ]
        yield name, {"versions": shapes} if shapes else {}


class _Finder:
    """Which model of a provider a name is: the first one whose clause matches."""

    def __init__(self, models: Sequence[Mapping[str, Any]]) -> None:
        self._exact: dict[str, int] = {}
        self._others: list[tuple[int, Mapping[str, Any]]] = []
        for number, model in enumerate(models):
            names = _equals(model["match"])
            for name in names or ():
                self._exact.setdefault(name, number)
            if names is None:
                self._others.append((number, model["match"]))

    def find(self, name: str) -> int | None:
        exact = self._exact.get(name)
        for number, clause in self._others:
            if exact is not None and number > exact:
                break
            if _matches(clause, name):
                return number
        return exact


def _equals(clause: Mapping[str, Any]) -> list[str] | None:
    """The names a clause lists; None: it is no mere list of names."""
    ((operator, value),) = clause.items()
    if operator == "equals":
        return [str(value)]
    if operator != "or":
        return None
    lists = [_equals(part) for part in value]
    return None if None in lists else [name for names in lists for name in names or ()]


def _literals(clause: Mapping[str, Any]) -> Iterator[str]:
    for operator, value in clause.items():
        if operator in ("or", "and"):
            for part in value:
                yield from _literals(part)
        elif operator == "equals" or (operator == "starts_with" and value[-1:].isalnum()):
            yield str(value)


def _matches(clause: Mapping[str, Any], name: str) -> bool:
    ((operator, value),) = clause.items()
    if operator == "or":
        return any(_matches(part, name) for part in value)
    if operator == "and":
        return all(_matches(part, name) for part in value)
    if operator == "regex":
        return re.search(value, name) is not None
    if operator == "equals":
        return name == str(value)
    if operator == "starts_with":
        return name.startswith(value)
    return name.endswith(value) if operator == "ends_with" else str(value) in name
