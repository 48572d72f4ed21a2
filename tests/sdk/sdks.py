"""The official SDKs behind one small interface, synchronous and asynchronous, unchanged.

`base` is where an SDK's documentation says its base URL goes; each method opens a client with the
SDK's defaults (its own retries included), and closes it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
from google import genai
from google.genai import errors as genai_errors

from tests.sdk import replies

PROMPT = "Where does the rain stay?"
CONVERSATION: Any = [{"role": "user", "content": PROMPT}]


def _cut_stream_errors() -> tuple[type[Exception], ...]:
    """What the HTTP libraries of these SDKs raise when a connection is dropped mid-body."""
    found: list[type[Exception]] = [httpx.RemoteProtocolError, openai.APIConnectionError]
    found.append(anthropic.APIConnectionError)
    for module, name in (("httpx2", "RemoteProtocolError"), ("aiohttp", "ClientPayloadError")):
        try:
            found.append(getattr(__import__(module), name))
        except ImportError:  # not a dependency of the versions installed
            continue
    return tuple(found)


CUT = _cut_stream_errors()


@dataclass(frozen=True)
class Sdk:
    """One API of one SDK. Events of a stream go to `seen` as they arrive, as plain data."""

    name: str
    provider: str
    model: str
    route: str
    stream_route: str
    path: str  # as sent by the SDK at its bare base URL
    stream_query: str
    suffix: str  # what its base URL ends in
    errors: dict[str, type[Exception]]
    wraps_reply: str  # reply fixture: "chat", "responses", "messages", "generate"

    def base(self, origin: str, prefix: str = "") -> str:
        return f"{origin}{prefix}{self.suffix}"

    def ask(self, base: str, key: str, **options: Any) -> str:
        raise NotImplementedError

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        raise NotImplementedError

    def events(self) -> list[bytes]:
        """The provider's stream, as it is when nobody asks for more."""
        return {
            "chat": lambda: replies.chat_events(include_usage=True),
            "responses": replies.response_events,
            "messages": replies.message_events,
            "generate": replies.generated_events,
        }[self.wraps_reply]()

    def whole(self) -> Any:
        return {
            "chat": replies.chat,
            "responses": replies.response,
            "messages": replies.message,
            "generate": replies.generated,
        }[self.wraps_reply]()


_OPENAI: dict[str, Any] = {
    "provider": "openai",
    "model": replies.CHAT_MODEL,
    "stream_query": "",
    "suffix": "/v1",
    "errors": {
        "spent": openai.RateLimitError,
        "key": openai.AuthenticationError,
        "forbidden": openai.PermissionDeniedError,
        "payment": openai.APIStatusError,
        "server": openai.InternalServerError,
        "event": openai.APIError,
    },
}
_CHAT: dict[str, Any] = {
    **_OPENAI,
    "route": "chat.completions",
    "stream_route": "chat.completions",
    "path": "/v1/chat/completions",
    "wraps_reply": "chat",
}
_RESPONSES: dict[str, Any] = {
    **_OPENAI,
    "route": "responses",
    "stream_route": "responses",
    "path": "/v1/responses",
    "wraps_reply": "responses",
}
_ANTHROPIC: dict[str, Any] = {
    "provider": "anthropic",
    "model": replies.MESSAGES_MODEL,
    "route": "messages",
    "stream_route": "messages",
    "path": "/v1/messages",
    "stream_query": "",
    "suffix": "",
    "wraps_reply": "messages",
    "errors": {
        "spent": anthropic.RateLimitError,
        "key": anthropic.AuthenticationError,
        "forbidden": anthropic.PermissionDeniedError,
        "payment": anthropic.APIStatusError,
        "server": anthropic.InternalServerError,
        "event": anthropic.APIStatusError,
    },
}
_GENAI: dict[str, Any] = {
    "provider": "gemini",
    "model": replies.GENERATE_MODEL,
    "route": "generateContent",
    "stream_route": "streamGenerateContent",
    "path": f"/v1/models/{replies.GENERATE_MODEL}:generateContent",
    "stream_query": "alt=sse",
    "suffix": "",
    "wraps_reply": "generate",
    "errors": {
        "spent": genai_errors.ClientError,
        "key": genai_errors.ClientError,
        "forbidden": genai_errors.ClientError,
        "payment": genai_errors.ClientError,
        "server": genai_errors.ServerError,
        "event": genai_errors.ServerError,
    },
}


class OpenAIChat(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        with openai.OpenAI(base_url=base, api_key=key, **options) as client:
            reply = client.chat.completions.create(model=self.model, messages=CONVERSATION)
            return reply.choices[0].message.content or ""

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        with (
            openai.OpenAI(base_url=base, api_key=key, **options) as client,
            client.chat.completions.create(
                model=self.model, messages=CONVERSATION, stream=True
            ) as stream,
        ):
            for event in stream:
                _note(event, seen)


class OpenAIResponses(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        with openai.OpenAI(base_url=base, api_key=key, **options) as client:
            return client.responses.create(model=self.model, input=PROMPT).output_text

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        with (
            openai.OpenAI(base_url=base, api_key=key, **options) as client,
            client.responses.create(model=self.model, input=PROMPT, stream=True) as stream,
        ):
            for event in stream:
                _note(event, seen)


class Anthropic(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        with anthropic.Anthropic(base_url=base, api_key=key, **options) as client:
            reply = client.messages.create(model=self.model, max_tokens=500, messages=CONVERSATION)
            return reply.content[0].text

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        with (
            anthropic.Anthropic(base_url=base, api_key=key, **options) as client,
            client.messages.create(
                model=self.model, max_tokens=500, messages=CONVERSATION, stream=True
            ) as stream,
        ):
            for event in stream:
                _note(event, seen)


class GenAI(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        with _genai(base, key, options) as client:
            reply = client.models.generate_content(model=self.model, contents=PROMPT)
            return reply.text or ""

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        with _genai(base, key, options) as client:
            for event in client.models.generate_content_stream(model=self.model, contents=PROMPT):
                _note(event, seen)


class AsyncOpenAIChat(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        async def ask() -> str:
            async with openai.AsyncOpenAI(base_url=base, api_key=key, **options) as client:
                reply = await client.chat.completions.create(
                    model=self.model, messages=CONVERSATION
                )
                return reply.choices[0].message.content or ""

        return asyncio.run(ask())

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        async def stream() -> None:
            async with (
                openai.AsyncOpenAI(base_url=base, api_key=key, **options) as client,
                await client.chat.completions.create(
                    model=self.model, messages=CONVERSATION, stream=True
                ) as events,
            ):
                await _collect(events, seen)

        asyncio.run(stream())


class AsyncAnthropic(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        async def ask() -> str:
            async with anthropic.AsyncAnthropic(base_url=base, api_key=key, **options) as client:
                reply = await client.messages.create(
                    model=self.model, max_tokens=500, messages=CONVERSATION
                )
                return reply.content[0].text

        return asyncio.run(ask())

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        async def stream() -> None:
            async with (
                anthropic.AsyncAnthropic(base_url=base, api_key=key, **options) as client,
                await client.messages.create(
                    model=self.model, max_tokens=500, messages=CONVERSATION, stream=True
                ) as events,
            ):
                await _collect(events, seen)

        asyncio.run(stream())


class AsyncGenAI(Sdk):
    def ask(self, base: str, key: str, **options: Any) -> str:
        async def ask() -> str:
            async with _genai(base, key, options).aio as client:
                reply = await client.models.generate_content(model=self.model, contents=PROMPT)
                return reply.text or ""

        return asyncio.run(ask())

    def stream(self, base: str, key: str, seen: list[Any], **options: Any) -> None:
        async def stream() -> None:
            async with _genai(base, key, options).aio as client:
                events = await client.models.generate_content_stream(
                    model=self.model, contents=PROMPT
                )
                await _collect(events, seen)

        asyncio.run(stream())


def _genai(base: str, key: str, options: dict[str, Any]) -> genai.Client:
    options = {name: value for name, value in options.items() if name != "max_retries"}
    return genai.Client(api_key=key, http_options={"base_url": base, **options})


def _note(event: Any, seen: list[Any]) -> None:
    """Keep an event as data; how its bytes travelled is not part of it."""
    seen.append(event.model_dump(exclude={"sdk_http_response"}))


async def _collect(events: AsyncIterator[Any], seen: list[Any]) -> None:
    async for event in events:
        _note(event, seen)


SDKS = (
    OpenAIChat("openai-chat", **_CHAT),
    OpenAIResponses("openai-responses", **_RESPONSES),
    Anthropic("anthropic", **_ANTHROPIC),
    GenAI("genai", **_GENAI),
    AsyncOpenAIChat("openai-chat-async", **_CHAT),
    AsyncAnthropic("anthropic-async", **_ANTHROPIC),
    AsyncGenAI("genai-async", **_GENAI),
)
