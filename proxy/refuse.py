"""How a refusal looks on the wire: the body of the API that was called, and the headers that
make its SDK stop, or wait, exactly once."""

import re
from functools import cache

from proxy.client import Headers
from proxy.errors import Refusal
from proxy.providers.base import Dialect, RefusalDialect
from proxy.providers.registry import dialect
from proxy.request_head import RequestHead

RETRY_AFTER_S_MAX = 60  # SDKs sleep through whatever they are told
# Clients that send again after any 429, whatever its headers say, but never after 402.
_REPEATS_429 = re.compile(rb"\b(ai-sdk|langchain-google-genai)/")


def refusal_headers(refusal: Refusal, request_id: str, spoken: Dialect) -> Headers:
    """Headers of a refusal: request ids where SDKs read them, the retry advice, and what else the
    dialect's own read."""
    request_id_bytes = request_id.encode("ascii")
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", request_id_bytes),
        (b"request-id", request_id_bytes),
        (b"x-tollkeeper-request-id", request_id_bytes),
    ]
    if refusal.final:
        headers.append((b"x-should-retry", b"false"))
    else:
        wait_s = min(max(refusal.retry_after_s or 1, 1), RETRY_AFTER_S_MAX)
        headers.append((b"retry-after", b"%d" % wait_s))
    resets_at = refusal.details.get("resets_at")
    if isinstance(resets_at, str):
        headers.append((b"x-tollkeeper-resets-at", resets_at.encode("ascii")))
    if isinstance(spoken, RefusalDialect):
        headers += spoken.refusal_headers(refusal)
    return headers


def guessed_dialect(head: RequestHead) -> Dialect:
    """The dialect to refuse in when no provider could be found."""
    if b"anthropic-version" in head.noted:
        return _spoken("anthropic")
    if b"x-goog-api-key" in head.noted:
        return _spoken("gemini")
    return _spoken("openai")


_spoken = cache(dialect)


def spent_status(spoken: Dialect, head: RequestHead) -> int:
    """The status of a spent budget that the client at the other end does not try again."""
    agent = next((line for line in head.lines if line.startswith(b"user-agent: ")), b"")
    return 402 if _REPEATS_429.search(agent) else spoken.spent_status
