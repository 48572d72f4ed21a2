"""How a message leaves: webhook, Slack-compatible webhook, mail, log.

Undelivered        it did not work; its text names no URL, which may itself be a secret
 +-- Unreachable   no answer, or one that asks to try again: worth another try at once
"""

import asyncio
import hashlib
import hmac
import logging
import ssl
from collections.abc import Callable
from functools import cache

import msgspec

from proxy.config import AlertChannel
from proxy.control.alerts.messages import Content

log = logging.getLogger("tollkeeper.alerts")

TIMEOUT_S = 10.0  # of each step: connect, send, wait for the answer
TOTAL_S = 20.0
TRY_AGAIN = frozenset((408, 425, 429))
SIGNATURE_VERSION = "v1"
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


class Undelivered(Exception):
    """Not delivered, and why, in words that may be shown."""


class Unreachable(Undelivered):
    """Nobody answered, or the answer was to try again."""


async def deliver(channel: AlertChannel, content: Content, now_s: Callable[[], float]) -> None:
    """One attempt. Raises Undelivered."""
    try:
        async with asyncio.timeout(TOTAL_S):
            if channel.kind == "email":
                from proxy.control.alerts.mail import send_mail  # noqa: PLC0415 - if there is any

                await send_mail(channel, content)
            elif channel.kind == "log":
                _write(content)
            else:
                await _post(channel, content, int(now_s()))
    except TimeoutError:
        raise Unreachable(f"no answer in {TOTAL_S:.0f} s") from None


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The signature of a webhook: HMAC-SHA256 over the timestamp, a dot and the body."""
    signed = f"{timestamp}.".encode() + body
    return f"{SIGNATURE_VERSION}={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


@cache
def _prepare() -> ssl.SSLContext:
    """The import and reading the certificates take tenths of a second, which only webhooks need
    and control's loop does not have."""
    import httpx  # noqa: F401, PLC0415

    # It would log each URL, and that of a Slack webhook is its password.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return ssl.create_default_context()


async def _post(channel: AlertChannel, content: Content, now_s: int) -> None:
    trusted = await asyncio.to_thread(_prepare)
    import httpx  # noqa: PLC0415

    headers = {"content-type": "application/json", "user-agent": "tollkeeper"}
    if channel.kind == "slack":
        body = msgspec.json.encode({"text": content.chat()})
    else:
        body = content.json()
        headers |= {
            "idempotency-key": content.key,
            "x-tollkeeper-timestamp": str(now_s),
            "x-tollkeeper-signature": sign(channel.secret, now_s, body),
        }
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, verify=trusted) as client,
            client.stream("POST", channel.url, content=body, headers=headers) as response,
        ):
            status = response.status_code  # nothing of the answer's body is read
    except httpx.TimeoutException:
        raise Unreachable("no answer in time") from None
    except httpx.TransportError as exc:
        raise Unreachable(f"no connection ({type(exc).__name__})") from None
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise Undelivered(f"not sent ({type(exc).__name__})") from None
    if status >= 500 or status in TRY_AGAIN:
        raise Unreachable(f"answered with status {status}")
    if not 200 <= status < 300:
        raise Undelivered(f"answered with status {status}")


def _write(content: Content) -> None:
    message = content.message
    extra = {"alert": message.id, "kind": message.kind, "scope": message.scope}
    log.log(LEVELS[message.severity], "alert: %s", content.headline, extra=extra)
