"""OpenAI's wire formats: chat completions, responses, embeddings."""

import base64
import json
import random
import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from proxy.demo.answers import Answer, Ask

CREATED = 1_763_700_000
EMBEDDING_DIMENSIONS = 64
CHUNK_TOKENS = 3

Body = dict[str, Any]


def parse_chat(body: Body) -> Ask:
    messages = body["messages"]
    instructions = [_text(m["content"]) for m in messages if m["role"] in ("system", "developer")]
    prompt = [_text(m["content"]) for m in messages if m["role"] not in ("system", "developer")]
    return Ask(
        model=body["model"],
        prompt="\n".join(prompt),
        instructions="\n".join(instructions),
        messages=len(messages),
        output_limit=body.get("max_completion_tokens", body.get("max_tokens")),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        cache_instructions=True,
    )


def parse_responses(body: Body) -> Ask:
    given = body["input"]
    turns = [given] if isinstance(given, str) else [_text(item["content"]) for item in given]
    return Ask(
        model=body["model"],
        prompt="\n".join(turns),
        instructions=body.get("instructions") or "",
        messages=len(turns),
        output_limit=body.get("max_output_tokens"),
        stream=bool(body.get("stream")),
        cache_instructions=True,
    )


def parse_embeddings(body: Body) -> Ask:
    given = body["input"]
    inputs = [given] if isinstance(given, str) else list(given)
    return Ask(
        model=body["model"],
        prompt="\n".join(inputs),
        inputs=inputs,
        messages=0,
        base64=body.get("encoding_format") == "base64",
    )


def _text(content: str | list[Body]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def chat(ask: Ask, answer: Answer) -> Body:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": answer.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": _finish(answer),
            }
        ],
        "usage": _chat_usage(answer),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def chat_frames(ask: Ask, answer: Answer) -> Iterator[bytes]:
    def chunk(choices: list[Body], usage: Body | None = None) -> bytes:
        data: Body = {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": answer.model,
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": choices,
        }
        if ask.include_usage:
            data["usage"] = usage
        return b"data: " + json.dumps(data).encode() + b"\n\n"

    def choice(delta: Body, finish: str | None = None) -> list[Body]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    yield chunk(choice({"role": "assistant", "content": "", "refusal": None}))
    for piece in answer.chunks(CHUNK_TOKENS):
        yield chunk(choice({"content": piece}))
    yield chunk(choice({}, _finish(answer)))
    if ask.include_usage:
        yield chunk([], _chat_usage(answer))
    yield b"data: [DONE]\n\n"


def _finish(answer: Answer) -> str:
    return "length" if answer.truncated else "stop"


def _chat_usage(answer: Answer) -> Body:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses(ask: Ask, answer: Answer) -> Body:
    return _response(ask, answer, _status(answer), [_message(answer, answer.text)])


def _status(answer: Answer) -> str:
    return "incomplete" if answer.truncated else "completed"


def _response(ask: Ask, answer: Answer, status: str, output: list[Body]) -> Body:
    done = status in ("completed", "incomplete")
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": ask.instructions or None,
        "max_output_tokens": ask.output_limit,
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default" if done else "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _responses_usage(answer) if done else None,
        "metadata": {},
    }


def _responses_usage(answer: Answer) -> Body:
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": answer.cache_read_tokens},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _part(text: str) -> Body:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _message(answer: Answer, text: str | None) -> Body:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "status": "in_progress" if text is None else "completed",
        "role": "assistant",
        "content": [] if text is None else [_part(text)],
    }


def responses_frames(ask: Ask, answer: Answer) -> Iterator[bytes]:
    number = 0

    def event(kind: str, **data: object) -> bytes:
        nonlocal number
        data = {"type": kind, "sequence_number": number, **data}
        number += 1
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    item = {"item_id": f"msg_{answer.id}", "output_index": 0, "content_index": 0}
    text = answer.text
    yield event("response.created", response=_response(ask, answer, "in_progress", []))
    yield event("response.in_progress", response=_response(ask, answer, "in_progress", []))
    yield event("response.output_item.added", output_index=0, item=_message(answer, None))
    yield event("response.content_part.added", **item, part=_part(""))
    for piece in answer.chunks(CHUNK_TOKENS):
        yield event("response.output_text.delta", **item, delta=piece, logprobs=[])
    yield event("response.output_text.done", **item, text=text, logprobs=[])
    yield event("response.content_part.done", **item, part=_part(text))
    yield event("response.output_item.done", output_index=0, item=_message(answer, text))
    yield event(f"response.{_status(answer)}", response=responses(ask, answer))


def embeddings(ask: Ask, answer: Answer) -> Body:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(text, ask.base64)}
            for index, text in enumerate(ask.inputs)
        ],
        "model": answer.model,
        "usage": {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens},
    }


def _vector(text: str, encoded: bool) -> list[float] | str:
    draw = random.Random(crc32(text.encode()))  # noqa: S311
    values = [draw.uniform(-0.1, 0.1) for _ in range(EMBEDDING_DIMENSIONS)]
    if not encoded:
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def error(status: int, message: str) -> Body:
    kinds = {401: "invalid_api_key", 404: "not_found"}
    kind = "invalid_request_error"
    return {
        "error": {"message": message, "type": kind, "param": None, "code": kinds.get(status)},
    }
