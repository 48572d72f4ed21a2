"""Which keys of a price entry are prices."""

import re
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any

from pricing.rates import CACHE_READ_OLD, REASONING, SIZED, TIERS
from pricing.units import UNIT_KEYS

_TOKEN_KEYS = (
    *SIZED,
    REASONING,
    CACHE_READ_OLD,
    *(f"input_cost_per_{kind}_token" for kind in ("audio", "image", "video")),
    *(f"output_cost_per_{kind}_token" for kind in ("audio", "image")),
    *(f"cache_read_input_{kind}_token_cost" for kind in ("audio", "image")),
)
_SUFFIXES = "|".join(TIERS.values())
_TOKEN_KEY = re.compile(rf"(?:{'|'.join(_TOKEN_KEYS)})(?:_above_\d+k?_tokens)?(?:{_SUFFIXES})")
_UNIT_KEY = re.compile(rf"(?:{'|'.join(sorted(UNIT_KEYS))})(?:@[\w./-]+)?(?:{_SUFFIXES})")
_SCALED = re.compile(r".*cost.*|search_context_size_\w+")
_EXACT = Context(prec=100)


def is_price_key(key: str) -> bool:
    """Whether a key prices something a call is charged for; overlays may set only these."""
    return _TOKEN_KEY.fullmatch(key) is not None or _UNIT_KEY.fullmatch(key) is not None


def scale_prices(entry: Mapping[str, Any], factor: Decimal) -> dict[str, Any]:
    """An entry with every price in it, nested ones included, times a factor, exactly."""
    return {key: _scaled(key, value, factor) for key, value in entry.items()}


def _scaled(key: str, value: Any, factor: Decimal) -> Any:
    if isinstance(value, Mapping):
        return scale_prices(value, factor)
    if isinstance(value, list):
        return [scale_prices(part, factor) if isinstance(part, Mapping) else part for part in value]
    if isinstance(value, str) and _SCALED.fullmatch(key):
        return format(_EXACT.multiply(Decimal(value), factor).normalize(_EXACT), "f")
    return value
