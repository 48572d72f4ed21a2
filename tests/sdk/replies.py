"""What the providers answer, in their wire formats, and the counts they report."""

from typing import Any

from tests.replay import ReplayServer, Reply, Request, json_reply, sse, sse_reply

TEXT = "The rain in Spain stays mainly in the plain."
PIECES = ["The rain ", "in Spain ", "stays mainly ", "in the plain."]
INPUT_TOKENS = 21
OUTPUT_TOKENS = 13

CHAT_MODEL = "gpt-5-mini"
MESSAGES_MODEL = "claude-sonnet-4-6"
GENERATE_MODEL = "gemini-2.5-flash"

_CHAT_USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


# --- openai, chat completions --------------------------------------------------------------


def chat() -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": CHAT_MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "finish_reason": "stop",
            }
        ],
        "usage": _CHAT_USAGE,
    }


def chat_events(include_usage: bool) -> list[bytes]:
    common = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": CHAT_MODEL,
    }
    extra: dict[str, Any] = {"usage": None} if include_usage else {}
    deltas: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant", "content": PIECES[0]}, None),
        *(({"content": piece}, None) for piece in PIECES[1:]),
        ({}, "stop"),
    ]
    events = [
        sse(
            {
                **common,
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
                **extra,
            }
        )
        for delta, reason in deltas
    ]
    if include_usage:
        events.append(sse({**common, "choices": [], "usage": _CHAT_USAGE}))
    return [*events, sse("[DONE]")]


# --- openai, responses ---------------------------------------------------------------------


def response(status: str = "completed") -> dict[str, Any]:
    done = status == "completed"
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "model": CHAT_MODEL,
        "output": [message] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if done else None,
    }


def response_events() -> list[bytes]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress")},
        *(
            {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
            for piece in PIECES
        ),
        {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []},
        {"type": "response.completed", "response": response()},
    ]
    return [
        sse({**event, "sequence_number": number}, event["type"])
        for number, event in enumerate(events)
    ]


# --- anthropic -----------------------------------------------------------------------------


def message(content: list[dict[str, Any]] | None = None, output_tokens: int = OUTPUT_TOKENS) -> Any:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MESSAGES_MODEL,
        "content": [{"type": "text", "text": TEXT}] if content is None else content,
        "stop_reason": "end_turn" if content is None else None,
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": output_tokens},
    }


def message_events() -> list[bytes]:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message([], 1)},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in PIECES
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": OUTPUT_TOKENS},
        },
        {"type": "message_stop"},
    ]
    return [sse(event, event["type"]) for event in events]


# --- gemini --------------------------------------------------------------------------------


def generated(text: str = TEXT, *, last: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "content": {"role": "model", "parts": [{"text": text}]},
        "index": 0,
    }
    usage = {
        "promptTokenCount": INPUT_TOKENS,
        "totalTokenCount": INPUT_TOKENS + (OUTPUT_TOKENS if last else 0),
    }
    if last:
        candidate["finishReason"] = "STOP"
        usage["candidatesTokenCount"] = OUTPUT_TOKENS
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": GENERATE_MODEL,
        "responseId": "r1",
    }


def generated_events() -> list[bytes]:
    return [sse(generated(piece, last=piece is PIECES[-1])) for piece in PIECES]


# --- what else the SDKs ask for ------------------------------------------------------------

EMBEDDINGS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
    "usage": {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS},
}
COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_790_000_000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": TEXT, "finish_reason": "stop", "logprobs": None}],
    "usage": _CHAT_USAGE,
}
MODERATION = {
    "id": "modr-1",
    "model": "omni-moderation-latest",
    "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
}
EMBEDDED = {"embeddings": [{"values": [0.5, -0.25]}]}
MODEL = {"id": "a/b", "object": "model", "created": 1, "owned_by": "someone"}


def _chat(request: Request) -> Reply:
    body = request.json()
    if not body.get("stream"):
        return json_reply(chat())
    return sse_reply(chat_events(bool((body.get("stream_options") or {}).get("include_usage"))))


def _either(whole: object, events: list[bytes]) -> Any:
    return lambda request: sse_reply(events) if request.json().get("stream") else json_reply(whole)


def play_every_api(server: ReplayServer) -> None:
    """Rules for every route the tests call; replies queued or ruled before come first."""
    server.on("/chat/completions", _chat)
    server.on("/responses", _either(response(), response_events()))
    server.on("/responses/resp_1", json_reply(response()))
    server.on("/embeddings", json_reply(EMBEDDINGS))
    server.on("/completions", json_reply(COMPLETION))
    server.on("/moderations", json_reply(MODERATION))
    server.on("/messages", _either(message(), message_events()))
    server.on("/messages/count_tokens", json_reply({"input_tokens": INPUT_TOKENS}))
    server.on(":generateContent", json_reply(generated()))
    server.on(":streamGenerateContent", lambda _: sse_reply(generated_events()))
    server.on(":batchEmbedContents", json_reply(EMBEDDED))
    server.on(":countTokens", json_reply({"totalTokens": INPUT_TOKENS}))
    server.on("/models/a%2Fb", json_reply(MODEL))
