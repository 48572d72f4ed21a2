"""Gemini's wire formats: generateContent, and its stream as SSE or as one JSON array."""

import json
from collections.abc import Iterator
from typing import Any

from proxy.demo.answers import Answer, Ask

CHUNK_TOKENS = 20

Body = dict[str, Any]
_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}


def parse(model: str, body: Body, stream: bool) -> Ask:
    contents = body["contents"]
    system = body.get("systemInstruction") or body.get("system_instruction") or {}
    config = body.get("generationConfig") or {}
    return Ask(
        model=model,
        prompt="\n".join(_text(content) for content in contents),
        instructions=_text(system),
        messages=len(contents),
        output_limit=config.get("maxOutputTokens"),
        stream=stream,
        cache_instructions=True,
    )


def _text(content: Body) -> str:
    return "\n".join(part.get("text", "") for part in content.get("parts", ()))


def content(ask: Ask, answer: Answer) -> Body:
    return _chunk(answer, answer.text, answer.text_tokens, _finish(answer))


def frames(ask: Ask, answer: Answer, sse: bool) -> Iterator[bytes]:
    chunks = answer.chunks(CHUNK_TOKENS) or [""]
    for number, chunk in enumerate(chunks, start=1):
        finish = _finish(answer) if number == len(chunks) else None
        so_far = min(number * CHUNK_TOKENS, answer.text_tokens)
        data = json.dumps(_chunk(answer, chunk, so_far, finish))
        if sse:
            yield f"data: {data}\r\n\r\n".encode()
        else:
            yield ("[" if number == 1 else ",\r\n").encode() + data.encode() + b"\n"
    if not sse:
        yield b"]"


def _finish(answer: Answer) -> str:
    return "MAX_TOKENS" if answer.truncated else "STOP"


def _chunk(answer: Answer, text: str, text_tokens: int, finish: str | None) -> Body:
    candidate: Body = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(answer, text_tokens),
        "modelVersion": answer.model,
        "responseId": answer.id,
    }


def _usage(answer: Answer, text_tokens: int) -> Body:
    usage: Body = {
        "promptTokenCount": answer.input_tokens,
        "candidatesTokenCount": text_tokens,
        "totalTokenCount": answer.input_tokens + text_tokens + answer.reasoning_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": answer.input_tokens}],
    }
    if answer.reasoning_tokens:
        usage["thoughtsTokenCount"] = answer.reasoning_tokens
    if answer.cache_read_tokens:
        usage["cachedContentTokenCount"] = answer.cache_read_tokens
    return usage


def error(status: int, message: str) -> Body:
    return {"error": {"code": status, "message": message, "status": _STATUSES[status]}}
