"""Middleware that takes e-mail addresses and card numbers out of requests before they leave.

    providers:
      openai:
        middleware:
          - {path: "redact:Redact"}

It changes the text in the JSON of a request: what is metered, held and forwarded is the changed
one. Keys, numbers and everything else stay. Replies are not touched.
"""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")


class Redact:
    def __init__(self, app: App, max_body_mb: str = "100") -> None:
        self._app = app
        self._body_bytes_max = int(float(max_body_mb) * 2**20)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        if not headers.get(b"content-type", b"").startswith(b"application/json"):
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self._body_bytes_max:
                await refuse(send)
                return
        body = redacted(b"".join(parts))
        framing = (b"content-length", b"transfer-encoding")
        kept = [header for header in scope["headers"] if header[0] not in framing]
        changed = {**scope, "headers": [*kept, (b"content-length", b"%d" % len(body))]}
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()  # what comes next is that the client hangs up
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(changed, replay, send)


def redacted(body: bytes) -> bytes:
    """The same JSON with every text in it redacted; what is no JSON is Tollkeeper's to refuse."""
    try:
        return json.dumps(clean(json.loads(body)), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return body


def clean(value: Any) -> Any:
    if isinstance(value, str):
        return CARD.sub("[card]", EMAIL.sub("[email]", value))
    if isinstance(value, list):
        return [clean(each) for each in value]
    if isinstance(value, dict):
        return {key: clean(each) for key, each in value.items()}
    return value


async def refuse(send: Send) -> None:
    body = b'{"error":{"message":"The request body is too large.","code":"request_too_large"}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
