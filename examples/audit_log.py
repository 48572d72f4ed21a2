"""Middleware that writes one line per request to a file: who asked, for what, what came of it.

    middleware:
      - {path: "audit_log:AuditLog", options: {file: /var/log/tollkeeper/audit.ndjson}}

Replies pass piece by piece as they come; nothing of a body is read. A worker appends whole lines,
so several may share a file.
"""

import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-tollkeeper-key")


class AuditLog:
    def __init__(self, app: App, file: str) -> None:
        self._app = app
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = asked(scope)
        began = time.monotonic()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
                entry.update(answered(message["headers"]))
            elif message["type"] == "http.response.body":
                entry["bytes"] += len(message.get("body", b""))
                entry["complete"] = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:  # also where the client hangs up, or the reply is cut
            entry["duration_ms"] = int((time.monotonic() - began) * 1000)
            os.write(self._fd, json.dumps(entry).encode() + b"\n")


def asked(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """What is known of a request. A key is named by the start of its hash, never by itself."""
    headers = dict(scope["headers"])
    secret = next((headers[name] for name in CREDENTIALS if name in headers), b"")
    client = scope.get("client")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "client": client[0] if client else "",
        "key": hashlib.sha256(secret.removeprefix(b"Bearer ")).hexdigest()[:12] if secret else "",
        "method": scope["method"],
        "path": scope["path"],
        "status": 0,
        "bytes": 0,
        "complete": False,
    }


def answered(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """What Tollkeeper says of the call; of a stream the cost is not known yet."""
    found = dict(headers)
    names = {"request_id": b"x-tollkeeper-request-id", "cost_usd": b"x-tollkeeper-cost-usd"}
    return {key: found[name].decode() for key, name in names.items() if name in found}
