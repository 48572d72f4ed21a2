"""Calls in every wire format: a request, its reply in parts, and what its row must say."""

import json
from dataclasses import dataclass
from typing import Any

from tests.replay import Reply, sse

JSON, EVENTS = "application/json", "text/event-stream"
WORDS = ("The toll ", "is paid, ", "the road is free.")


@dataclass(frozen=True)
class Shape:
    """One API, plain or streamed. `usage` and `cost` are of the whole reply."""

    name: str
    dialect: str
    route: str
    path: str  # with its query, as an SDK sends it to a base URL without a prefix
    body: dict[str, Any]
    parts: tuple[bytes, ...]  # of the reply
    usage: dict[str, int]
    cost: str
    stream: bool = True
    content_type: str = EVENTS
    known_after: int = 0  # parts after which usage is final; of a document: all of them
    error_part: bytes = b""  # the API's own error inside a stream

    def __str__(self) -> str:
        return self.name

    @property
    def model(self) -> str:
        return MODELS[self.dialect]

    @property
    def names_its_end(self) -> bool:
        """Whether the last part of a stream says that it is the last."""
        return self.stream and self.dialect != "gemini"

    @property
    def silent_parts(self) -> tuple[bytes, ...]:
        """The reply without its usage."""
        hidden = [part.replace(b'"usage"', b'"other"') for part in self.parts]
        return tuple(part.replace(b'"usageMetadata"', b'"other"') for part in hidden)

    @property
    def reply_body(self) -> bytes:
        return b"".join(self.parts)

    def request(self, **changes: Any) -> bytes:
        return json.dumps(self.body | changes).encode()

    def reply(self, parts: tuple[bytes, ...] | None = None, **how: Any) -> Reply:
        """The provider's answer: a stream in chunks, a document with its length."""
        parts = self.parts if parts is None else parts
        headers = [("content-type", self.content_type), ("x-request-id", "req-of-provider")]
        headers += how.pop("headers", [])
        if self.stream:
            return Reply(200, headers, list(parts), **{"framing": "chunked"} | how)
        return Reply(200, headers, b"".join(parts), **how)


MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
QUESTION = [{"role": "user", "content": "Who pays?"}]


def _counts(given: int, read: int, written: int, out: int, reasoning: int) -> dict[str, int]:
    return {
        "input_tokens": given,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": out,
        "reasoning_tokens": reasoning,
    }


# --- openai: 60 x 150 + 40 x 75 + 20 x 600 nano-USD

_OPENAI_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
_RESPONSES_USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "total_tokens": 120,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens_details": {"reasoning_tokens": 5},
}
OPENAI_COUNTS, OPENAI_COST = _counts(100, 40, 0, 20, 5), "0.000024"
_CHAT = {"model": "gpt-4o-mini", "max_completion_tokens": 200, "messages": QUESTION}


def _chat_chunk(choices: list[Any], **more: Any) -> bytes:
    return sse(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
        | {"choices": choices}
        | more
    )


CHAT_DELTAS = tuple(
    _chat_chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}]) for word in WORDS
)
CHAT_STOP = _chat_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
CHAT_USAGE = _chat_chunk([], usage=_OPENAI_USAGE)
DONE = sse("[DONE]")

CHAT = Shape(
    "chat",
    "openai",
    "chat.completions",
    "/v1/chat/completions",
    _CHAT,
    (
        json.dumps(
            {
                "id": "chatcmpl-1",
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "".join(WORDS)},
                        "finish_reason": "stop",
                    }
                ],
                "usage": _OPENAI_USAGE,
            }
        ).encode(),
    ),
    OPENAI_COUNTS,
    OPENAI_COST,
    stream=False,
    content_type=JSON,
)
CHAT_STREAM = Shape(
    "chat-stream",
    "openai",
    "chat.completions",
    "/v1/chat/completions",
    _CHAT | {"stream": True, "stream_options": {"include_usage": True}},
    (*CHAT_DELTAS, CHAT_STOP, CHAT_USAGE, DONE),
    OPENAI_COUNTS,
    OPENAI_COST,
    known_after=5,
    error_part=sse({"error": {"message": "overloaded", "type": "server_error", "code": "boom"}}),
)


def _response(**more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "gpt-4o-mini-2024-07-18"} | more


_RESPONSES = {"model": "gpt-4o-mini", "max_output_tokens": 200, "input": "Who pays?"}
_OUTPUT = [
    {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "".join(WORDS)}]}
]
RESPONSES = Shape(
    "responses",
    "openai",
    "responses",
    "/v1/responses",
    _RESPONSES,
    (json.dumps(_response(status="completed", output=_OUTPUT, usage=_RESPONSES_USAGE)).encode(),),
    OPENAI_COUNTS,
    OPENAI_COST,
    stream=False,
    content_type=JSON,
)


def _response_event(kind: str, **more: Any) -> bytes:
    return sse({"type": kind} | more, kind)


RESPONSES_STREAM = Shape(
    "responses-stream",
    "openai",
    "responses",
    "/v1/responses",
    _RESPONSES | {"stream": True},
    (
        _response_event("response.created", response=_response(status="in_progress", usage=None)),
        *(_response_event("response.output_text.delta", delta=word) for word in WORDS),
        _response_event(
            "response.completed",
            response=_response(status="completed", output=_OUTPUT, usage=_RESPONSES_USAGE),
        ),
    ),
    OPENAI_COUNTS,
    OPENAI_COST,
    known_after=5,
    error_part=_response_event(
        "error", code="server_error", message="overloaded", error={"code": "server_error"}
    ),
)

# --- anthropic: 60 x 3000 + 40 x 300 + 20 x 3750 + 20 x 15000 nano-USD

_ANTHROPIC_USAGE = {
    "input_tokens": 60,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 20,
    "output_tokens": 20,
}
ANTHROPIC_COUNTS, ANTHROPIC_COST = _counts(120, 40, 20, 20, 0), "0.000567"
_MESSAGES = {"model": "claude-sonnet-4-5", "max_tokens": 200, "messages": QUESTION}


def _message_event(kind: str, **more: Any) -> bytes:
    return sse({"type": kind} | more, kind)


MESSAGES = Shape(
    "messages",
    "anthropic",
    "messages",
    "/v1/messages",
    _MESSAGES,
    (
        json.dumps(
            {
                "id": "msg_1",
                "type": "message",
                "model": "claude-sonnet-4-5-20250929",
                "content": [{"type": "text", "text": "".join(WORDS)}],
                "usage": _ANTHROPIC_USAGE,
            }
        ).encode(),
    ),
    ANTHROPIC_COUNTS,
    ANTHROPIC_COST,
    stream=False,
    content_type=JSON,
)
MESSAGES_STREAM = Shape(
    "messages-stream",
    "anthropic",
    "messages",
    "/v1/messages",
    _MESSAGES | {"stream": True},
    (
        _message_event(
            "message_start",
            message={
                "id": "msg_1",
                "type": "message",
                "model": "claude-sonnet-4-5-20250929",
                "content": [],
                "usage": _ANTHROPIC_USAGE | {"output_tokens": 1},
            },
        ),
        *(
            _message_event("content_block_delta", delta={"type": "text_delta", "text": word})
            for word in WORDS
        ),
        _message_event(
            "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 20}
        ),
        _message_event("message_stop"),
    ),
    ANTHROPIC_COUNTS,
    ANTHROPIC_COST,
    known_after=5,
    error_part=_message_event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
)

# --- gemini: 60 x 300 + 40 x 30 + 20 x 2500 nano-USD

GEMINI_COUNTS, GEMINI_COST = _counts(100, 40, 0, 20, 5), "0.0000692"
_CONTENTS = {
    "contents": [{"role": "user", "parts": [{"text": "Who pays?"}]}],
    "generationConfig": {"maxOutputTokens": 200},
}


def _gemini(text: str, *, out: int, thoughts: int, finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": out,
            "thoughtsTokenCount": thoughts,
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "gem-1",
    }


_GEMINI_CHUNKS = (
    _gemini(WORDS[0], out=3, thoughts=5),
    _gemini(WORDS[1], out=6, thoughts=5),
    _gemini(WORDS[2], out=15, thoughts=5, finish="STOP"),
)
_GEMINI_ERROR = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
_MODEL_PATH = "/v1beta/models/gemini-2.5-flash"

GENERATE = Shape(
    "generate",
    "gemini",
    "generateContent",
    f"{_MODEL_PATH}:generateContent",
    _CONTENTS,
    (json.dumps(_gemini("".join(WORDS), out=15, thoughts=5, finish="STOP")).encode(),),
    GEMINI_COUNTS,
    GEMINI_COST,
    stream=False,
    content_type=JSON,
)
GENERATE_SSE = Shape(
    "generate-sse",
    "gemini",
    "streamGenerateContent",
    f"{_MODEL_PATH}:streamGenerateContent?alt=sse",
    _CONTENTS,
    tuple(sse(chunk) for chunk in _GEMINI_CHUNKS),
    GEMINI_COUNTS,
    GEMINI_COST,
    known_after=3,
    error_part=sse(_GEMINI_ERROR),
)
GENERATE_ARRAY = Shape(
    "generate-array",
    "gemini",
    "streamGenerateContent",
    f"{_MODEL_PATH}:streamGenerateContent",
    _CONTENTS,
    (
        *(
            (b"," if index else b"[") + json.dumps(chunk, indent=1).encode() + b"\n"
            for index, chunk in enumerate(_GEMINI_CHUNKS)
        ),
        b"]",
    ),
    GEMINI_COUNTS,
    GEMINI_COST,
    content_type=JSON,
    known_after=3,
    error_part=b"," + json.dumps(_GEMINI_ERROR).encode() + b"\n",
)

DOCUMENTS = (CHAT, RESPONSES, MESSAGES, GENERATE)
STREAMS = (CHAT_STREAM, RESPONSES_STREAM, MESSAGES_STREAM, GENERATE_SSE, GENERATE_ARRAY)
SHAPES = DOCUMENTS + STREAMS
