"""Everything Tollkeeper itself answers with an error.

One class: the code decides status, retry advice and wording in every dialect. Providers' files
turn a `Refusal` into the body their SDK understands; nothing else renders errors.
"""

from dataclasses import dataclass, field

# code -> (http status, final): final errors carry `x-should-retry: false` and no `retry-after`.
CODES: dict[str, tuple[int, bool]] = {
    "bad_request": (400, True),
    "ambiguous_credentials": (400, True),
    "invalid_tollkeeper_header": (400, True),
    "customer_required": (400, True),
    "invalid_api_key": (401, True),
    "key_expired": (401, True),
    "key_revoked": (401, True),
    "model_not_priced": (403, True),
    "model_not_allowed": (403, True),
    "route_not_metered": (403, True),
    "too_many_customers": (403, True),
    "provider_not_allowed": (403, True),
    "file_not_priced": (403, True),
    "unknown_route": (404, True),
    "unknown_provider": (404, True),
    "request_too_large": (413, True),
    "websocket_not_supported": (426, True),
    "budget_exceeded": (429, True),
    "cost_cap_exceeded": (429, True),
    "budget_busy": (429, False),
    "rate_limited": (429, False),
    "upstream_unreachable": (502, False),
    "upstream_credentials": (503, False),
    "upstream_timeout": (504, False),
    "ledger_unavailable": (503, False),
    "draining": (503, False),
    "overloaded": (503, False),
    "internal_error": (500, True),
}


@dataclass(slots=True)
class Refusal(Exception):
    """A call Tollkeeper answers itself. `details` goes into the body (scope, limit, ...)."""

    code: str
    message: str
    details: dict[str, object] = field(default_factory=dict)
    retry_after_s: int | None = None  # 1 to 60, only on errors that are not final
    status_override: int | None = None  # `refusal_status` of the key or the provider

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    @property
    def status(self) -> int:
        return self.status_override or CODES[self.code][0]

    @property
    def final(self) -> bool:
        """True: sending the same request again cannot help."""
        return CODES[self.code][1]
