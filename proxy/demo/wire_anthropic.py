"""Anthropic's wire format: messages. Cached tokens are counted beside `input_tokens`."""

import json
from collections.abc import Iterator
from typing import Any

from proxy.demo.answers import Answer, Ask

CHUNK_TOKENS = 5

Body = dict[str, Any]
_ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


def parse(body: Body) -> Ask:
    system = body.get("system") or ""
    messages = body["messages"]
    return Ask(
        model=body["model"],
        prompt="\n".join(_text(message["content"]) for message in messages),
        instructions=_text(system),
        messages=len(messages),
        output_limit=body["max_tokens"],
        stream=bool(body.get("stream")),
        cache_instructions=isinstance(system, list) and any("cache_control" in b for b in system),
    )


def _text(content: str | list[Body]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content)


def message(ask: Ask, answer: Answer) -> Body:
    body = _message(answer, _input_usage(answer) | {"output_tokens": answer.output_tokens})
    body["content"] = [{"type": "text", "text": answer.text}]
    body["stop_reason"] = _stop_reason(answer)
    return body


def _message(answer: Answer, usage: Body) -> Body:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop_reason(answer: Answer) -> str:
    return "max_tokens" if answer.truncated else "end_turn"


def _input_usage(answer: Answer) -> Body:
    written = answer.cache_write_tokens
    return {
        "input_tokens": answer.input_tokens - answer.cache_read_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": answer.cache_read_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    }


def frames(ask: Ask, answer: Answer) -> Iterator[bytes]:
    def event(kind: str, **data: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()

    start = _message(answer, _input_usage(answer) | {"output_tokens": 1})
    yield event("message_start", message=start)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for piece in answer.chunks(CHUNK_TOKENS):
        delta = {"type": "text_delta", "text": piece}
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    stop = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    yield event("message_delta", delta=stop, usage={"output_tokens": answer.output_tokens})
    yield event("message_stop")


def error(status: int, message: str) -> Body:
    kind = _ERROR_TYPES[status]
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req_simulated",
    }
