"""Why calls are refused, in words: every error code, and the kinds people sort them into."""

from collections.abc import Sequence
from typing import NamedTuple

# kind -> its codes and what each is called
KINDS: dict[str, dict[str, str]] = {
    "Money": {
        "budget_exceeded": "Budget spent",
        "budget_busy": "Budget held by calls in flight",
        "cost_cap_exceeded": "Above the cap per call",
        "too_many_customers": "More customers than are tracked",
    },
    "Prices": {
        "model_not_priced": "Model without a price",
        "file_not_priced": "Batch whose cost cannot be known",
        "route_not_metered": "Route not metered",
    },
    "Keys": {
        "invalid_api_key": "Unknown key",
        "key_expired": "Key expired",
        "key_revoked": "Key revoked",
        "model_not_allowed": "Model not allowed",
        "provider_not_allowed": "Provider not allowed",
        "ambiguous_credentials": "Two different keys",
    },
    "Requests": {
        "bad_request": "Request not understood",
        "invalid_tollkeeper_header": "Header not understood",
        "customer_required": "No customer named",
        "unknown_route": "Unknown route",
        "unknown_provider": "Unknown provider",
        "request_too_large": "Request too large",
        "websocket_not_supported": "WebSocket not supported",
    },
    "Providers": {
        "upstream_unreachable": "Provider unreachable",
        "upstream_timeout": "Provider too slow",
        "upstream_credentials": "No credential for the provider",
    },
    "Tollkeeper": {
        "rate_limited": "Rate limited",
        "overloaded": "Too many calls at once",
        "ledger_unavailable": "Ledger out of reach",
        "draining": "Stopping",
        "internal_error": "Internal error",
    },
}
REASONS = {code: text for codes in KINDS.values() for code, text in codes.items()}
OTHER = "Other"


class Kind(NamedTuple):
    name: str
    calls: int
    codes: Sequence[tuple[str, int]]  # the most frequent first


def reason(code: str) -> str:
    return REASONS.get(code) or code.replace("_", " ").capitalize()


def reached_provider(code: str) -> bool:
    """Whether a call refused so may have got as far as to its provider."""
    return code in KINDS["Providers"] or code == "internal_error"


def by_kind(counts: Sequence[tuple[str, int]]) -> list[Kind]:
    """Counts by code, as kinds in the order above; those without calls are left out."""
    known = {name: [each for each in counts if each[0] in codes] for name, codes in KINDS.items()}
    known[OTHER] = [each for each in counts if each[0] not in REASONS]
    return [
        Kind(name, sum(calls for _, calls in found), found)
        for name, found in known.items()
        if found
    ]
