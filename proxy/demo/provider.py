"""The simulated provider: OpenAI, Anthropic and Gemini on one port, with its own bill.

A plain ASGI application. It shares no code with the proxy's metering and pricing, so that what it
says it billed is an independent check of the cost rows.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, unquote

from proxy.demo import wire_anthropic, wire_gemini, wire_openai
from proxy.demo.answers import Answer, Ask, Author

BODY_BYTES_MAX = 10 * 2**20
_MILLION = Decimal(1_000_000)
_GEMINI_PATH = re.compile(r"/v1(?:beta)?/models/([^/:]+):(generateContent|streamGenerateContent)\Z")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ListPrice:
    """USD per million tokens, as on the provider's price page."""

    input: Decimal
    cache_read: Decimal
    cache_write: Decimal
    output: Decimal


def _usd(input: str, cache_read: str, cache_write: str, output: str) -> ListPrice:
    return ListPrice(Decimal(input), Decimal(cache_read), Decimal(cache_write), Decimal(output))


LIST_PRICES = {
    "gpt-5.2": _usd("1.75", "0.175", "1.75", "14"),
    "gpt-5-mini": _usd("0.25", "0.025", "0.25", "2"),
    "text-embedding-3-small": _usd("0.02", "0.02", "0.02", "0"),
    "claude-sonnet-4-6": _usd("3", "0.30", "3.75", "15"),
    "claude-haiku-4-5": _usd("1", "0.10", "1.25", "5"),
    "gemini-2.5-flash": _usd("0.30", "0.03", "0.30", "2.50"),
}


@dataclass(frozen=True, slots=True)
class Bill:
    """One answered call, as the provider's invoice shows it."""

    model: str
    usd: Decimal


@dataclass(slots=True)
class Reply:
    """An answer in its wire format: one JSON body, or the pieces of a stream."""

    ask: Ask
    content: Callable[[Answer], dict[str, Any]]
    frames: Callable[[Answer], Iterator[bytes]] | None = None
    content_type: str = "text/event-stream"


class WireError(Exception):
    """A request the provider answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SimulatedProvider:
    """ASGI application. `bills` and `rejected` are what it did so far."""

    def __init__(self, api_key: str, *, seed: int = 0, chunk_delay_s: float = 0) -> None:
        self.bills: list[Bill] = []
        self.rejected = 0  # calls without the provider's own key
        self._api_key = api_key
        self._chunk_delay_s = chunk_delay_s
        self._author = Author(seed)

    @property
    def billed_usd(self) -> Decimal:
        return sum((bill.usd for bill in self.bills), Decimal(0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return None
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        path = scope["path"]
        wire = _wire(path, headers)
        try:
            self._check_key(headers)
            if scope["method"] == "GET" and path.endswith("/models"):
                return await _send_json(send, 200, _models(wire))
            reply = _reply(path, scope["query_string"], await _body(receive))
            await self._send_reply(send, reply)
        except WireError as exc:
            await _send_json(send, exc.status, wire.error(exc.status, str(exc)))

    def _check_key(self, headers: dict[str, str]) -> None:
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or headers.get("x-api-key") or headers.get("x-goog-api-key")
        if given != self._api_key:
            self.rejected += 1
            raise WireError(401, "Incorrect API key provided.")

    async def _send_reply(self, send: Send, reply: Reply) -> None:
        price = LIST_PRICES.get(reply.ask.model)
        if price is None:
            raise WireError(404, f"The model `{reply.ask.model}` does not exist.")
        answer = self._author.answer(reply.ask)
        self.bills.append(Bill(answer.model, _amount(answer, price, reply.ask)))
        if reply.ask.stream and reply.frames:
            await self._send_stream(send, reply.frames(answer), reply.content_type)
        else:
            await asyncio.sleep(self._chunk_delay_s * 30)
            await _send_json(send, 200, reply.content(answer))

    async def _send_stream(self, send: Send, frames: Iterator[bytes], content_type: str) -> None:
        await _start(send, 200, content_type)
        for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            await asyncio.sleep(self._chunk_delay_s)
        await send({"type": "http.response.body", "body": b""})


def _amount(answer: Answer, price: ListPrice, ask: Ask) -> Decimal:
    fresh = answer.input_tokens - answer.cache_read_tokens - answer.cache_write_tokens
    output = 0 if ask.inputs else answer.output_tokens
    total = (
        fresh * price.input
        + answer.cache_read_tokens * price.cache_read
        + answer.cache_write_tokens * price.cache_write
        + output * price.output
    )
    return total / _MILLION


def _wire(path: str, headers: dict[str, str]) -> Any:
    """The module that speaks the format of a call."""
    if "anthropic-version" in headers:
        return wire_anthropic
    if "x-goog-api-key" in headers or ":" in path:
        return wire_gemini
    return wire_openai


def _reply(path: str, query: bytes, raw: bytes) -> Reply:
    try:
        body = json.loads(raw)
        return _route(unquote(path), query, body)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise WireError(400, f"Could not read the request: {exc}") from exc


def _route(path: str, query: bytes, body: dict[str, Any]) -> Reply:
    gemini = _GEMINI_PATH.match(path)
    if gemini:
        return _gemini_reply(gemini[1], gemini[2], query, body)
    if path == "/v1/chat/completions":
        ask = wire_openai.parse_chat(body)
        return _both(ask, wire_openai.chat, wire_openai.chat_frames)
    if path == "/v1/responses":
        ask = wire_openai.parse_responses(body)
        return _both(ask, wire_openai.responses, wire_openai.responses_frames)
    if path == "/v1/messages":
        ask = wire_anthropic.parse(body)
        return _both(ask, wire_anthropic.message, wire_anthropic.frames)
    if path == "/v1/embeddings":
        ask = wire_openai.parse_embeddings(body)
        return Reply(ask, lambda answer: wire_openai.embeddings(ask, answer))
    raise WireError(404, f"Unknown path {path}")


def _both(
    ask: Ask,
    content: Callable[[Ask, Answer], dict[str, Any]],
    frames: Callable[[Ask, Answer], Iterator[bytes]],
) -> Reply:
    return Reply(ask, lambda answer: content(ask, answer), lambda answer: frames(ask, answer))


def _gemini_reply(model: str, verb: str, query: bytes, body: dict[str, Any]) -> Reply:
    sse = parse_qs(query.decode()).get("alt") == ["sse"]
    ask = wire_gemini.parse(model, body, verb.startswith("stream"))
    return Reply(
        ask,
        lambda answer: wire_gemini.content(ask, answer),
        lambda answer: wire_gemini.frames(ask, answer, sse),
        "text/event-stream" if sse else "application/json",
    )


def _models(wire: Any) -> dict[str, Any]:
    if wire is wire_gemini:
        return {"models": [{"name": f"models/{name}"} for name in LIST_PRICES]}
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "owned_by": "simulated"} for name in LIST_PRICES],
    }


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise WireError(400, "The client went away.")
        body += bytes(message.get("body", b""))
        if len(body) > BODY_BYTES_MAX:
            raise WireError(400, "The request is too large.")
        if not message.get("more_body"):
            return body


async def _start(send: Send, status: int, content_type: str, length: int | None = None) -> None:
    headers = [(b"content-type", content_type.encode()), (b"x-request-id", b"req_simulated")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_json(send: Send, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    await _start(send, status, "application/json", len(body))
    await send({"type": "http.response.body", "body": body})
