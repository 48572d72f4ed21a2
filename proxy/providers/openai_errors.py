"""Refusals as errors of OpenAI's API."""

from proxy.errors import Refusal

_TYPES = {
    "budget_exceeded": "insufficient_quota",
    "cost_cap_exceeded": "insufficient_quota",
    "budget_busy": "rate_limit_error",
    "rate_limited": "rate_limit_error",
    "model_not_priced": "permission_error",
    "model_not_allowed": "permission_error",
    "route_not_metered": "permission_error",
    "provider_not_allowed": "permission_error",
    "file_not_priced": "permission_error",
    "invalid_api_key": "authentication_error",
    "key_expired": "authentication_error",
    "key_revoked": "authentication_error",
}


def error_object(refusal: Refusal) -> dict[str, object]:
    """The `error` of a body."""
    server_side = refusal.status >= 500
    error: dict[str, object] = {
        "message": refusal.message,
        "type": _TYPES.get(
            refusal.code, "server_error" if server_side else "invalid_request_error"
        ),
        "param": None,
        "code": refusal.code,
    }
    if refusal.details:
        error["details"] = refusal.details
    return error
