"""The SDKs of Groq, Mistral and Cohere, unchanged, and what their providers answer."""

from dataclasses import dataclass
from typing import Any

import cohere
import groq
import httpx
from cohere.core.api_error import ApiError
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tests.replay import ReplayServer, json_reply, sse, sse_reply
from tests.sdk import replies
from tests.sdk.sdks import CONVERSATION, CUT

COUNTS = {"input_tokens": replies.INPUT_TOKENS, "output_tokens": replies.OUTPUT_TOKENS}


@dataclass(frozen=True)
class Vendor:
    """One SDK: its own errors by what was refused, and the status of spent money."""

    provider: str
    model: str
    path: str
    errors: dict[str, type[Exception] | tuple[type[Exception], ...]]
    spent_status: int = 429

    def ask(self, base: str, key: str) -> str:
        raise NotImplementedError

    def stream(self, base: str, key: str, seen: list[Any]) -> None:
        raise NotImplementedError

    def events(self) -> list[bytes]:
        """The provider's stream."""
        raise NotImplementedError

    def whole(self) -> Any:
        """The provider's reply."""
        return {**replies.chat(), "model": self.model}

    def play(self, server: ReplayServer) -> None:
        server.on(
            self.path,
            lambda request: (
                sse_reply(self.events())
                if request.json().get("stream")
                else json_reply(self.whole())
            ),
            first=True,
        )


class GroqSdk(Vendor):
    def ask(self, base: str, key: str) -> str:
        with groq.Groq(base_url=base, api_key=key) as client:
            reply = client.chat.completions.create(model=self.model, messages=CONVERSATION)
            return reply.choices[0].message.content or ""

    def stream(self, base: str, key: str, seen: list[Any]) -> None:
        with groq.Groq(base_url=base, api_key=key) as client:
            chunks = client.chat.completions.create(
                model=self.model, messages=CONVERSATION, stream=True
            )
            seen.extend(chunk.model_dump() for chunk in chunks)

    def events(self) -> list[bytes]:
        """Usage in `x_groq` of the chunk that finishes."""
        events = replies.chat_events(include_usage=False)
        usage = replies.chat()["usage"]
        last = events[-2].replace(b'"model"', b'"x_groq": {"usage": %s}, "model"')
        return [*events[:-2], last % json_reply(usage).body, events[-1]]


class MistralSdk(Vendor):
    def ask(self, base: str, key: str) -> str:
        with Mistral(api_key=key, server_url=base) as client:
            reply = client.chat.complete(model=self.model, messages=CONVERSATION)
            return str(reply.choices[0].message.content)

    def stream(self, base: str, key: str, seen: list[Any]) -> None:
        with Mistral(api_key=key, server_url=base) as client:
            events = client.chat.stream(model=self.model, messages=CONVERSATION)
            seen.extend(event.data.model_dump() for event in events)

    def events(self) -> list[bytes]:
        """Usage beside the reason of the chunk that finishes, unasked."""
        events = replies.chat_events(include_usage=False)
        usage = json_reply(replies.chat()["usage"]).body
        last = events[-2].replace(b'"model"', b'"usage": %s, "model"') % usage
        return [*events[:-2], last, events[-1]]


class CohereSdk(Vendor):
    def ask(self, base: str, key: str) -> str:
        client = cohere.ClientV2(api_key=key, base_url=base, httpx_client=httpx.Client())
        with client:
            reply = client.chat(model=self.model, messages=CONVERSATION)
            content: Any = reply.message.content
            return str(content[0].text)

    def stream(self, base: str, key: str, seen: list[Any]) -> None:
        client = cohere.ClientV2(api_key=key, base_url=base, httpx_client=httpx.Client())
        with client:
            events = client.chat_stream(model=self.model, messages=CONVERSATION)
            seen.extend(event.model_dump() for event in events)

    def events(self) -> list[bytes]:
        usage = {"billed_units": COUNTS, "tokens": {"input_tokens": 500, "output_tokens": 99}}
        start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
        events: list[dict[str, Any]] = [
            {"type": "message-start", "id": "m1", "delta": {"message": start}},
            *(
                {
                    "type": "content-delta",
                    "index": 0,
                    "delta": {"message": {"content": {"text": piece}}},
                }
                for piece in replies.PIECES
            ),
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
        ]
        return [sse(event, event["type"]) for event in events]

    def whole(self) -> Any:
        message = {"role": "assistant", "content": [{"type": "text", "text": replies.TEXT}]}
        usage = {"billed_units": COUNTS}
        return {"id": "m1", "message": message, "finish_reason": "COMPLETE", "usage": usage}


# Their SDKs know no error event: a stream that we end is dropped.
DROPPED = (*CUT, groq.APIConnectionError)
VENDORS = (
    GroqSdk(
        "groq",
        "openai/gpt-oss-120b",
        "/openai/v1/chat/completions",
        {
            "spent": groq.RateLimitError,
            "key": groq.AuthenticationError,
            "ours": groq.APIError,
        },
    ),
    MistralSdk(
        "mistral",
        "mistral-large-latest",
        "/v1/chat/completions",
        {"spent": SDKError, "key": SDKError, "ours": DROPPED},
    ),
    CohereSdk(
        "cohere",
        "command-a-03-2025",
        "/v2/chat",
        {"spent": ApiError, "key": ApiError, "ours": DROPPED},
        spent_status=402,
    ),
)
