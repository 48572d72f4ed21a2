"""What the providers answer to a question with a tool: a call of the tool, then the text."""

import json
from collections.abc import Callable
from typing import Any

from tests.replay import ReplayServer, Reply, Request, json_reply, sse, sse_reply
from tests.sdk import replies

RESULT = b"rain-in-spain"  # what the tool says, in the drivers
ARGUMENTS = {"place": "Spain"}
ARGUMENT_PIECES = ['{"place": ', '"Spain"}']
FUNCTION_CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": "".join(ARGUMENT_PIECES),
    "status": "completed",
}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": ARGUMENTS}
EMBEDDING = [0.5, -0.25]


# --- openai, chat completions --------------------------------------------------------------


def chat_call() -> dict[str, Any]:
    reply = replies.chat()
    function = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
    call = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    reply["choices"] = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    return reply


def chat_call_events(include_usage: bool) -> list[bytes]:
    started = {"id": "call_1", "type": "function", "function": {"name": "weather"}}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **started}]},
        *(
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            for piece in ARGUMENT_PIECES
        ),
    ]
    _, *common, end = replies.chat_events(include_usage)
    last = common[3].replace(b'"stop"', b'"tool_calls"')
    chunk = {key: replies.chat()[key] for key in ("id", "created", "model")}
    chunk["object"] = "chat.completion.chunk"
    return [
        *(
            sse({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            for delta in deltas
        ),
        last,
        *common[4:],
        end,
    ]


# --- openai, responses ---------------------------------------------------------------------


def response_call() -> dict[str, Any]:
    return {**replies.response(), "output": [FUNCTION_CALL]}


def _response_events(item: Any, parts: list[dict[str, Any]], last: Any) -> list[bytes]:
    """A stream with one output item, as its events tell it from the first to the last."""
    started = {**item, "status": "in_progress"}
    started |= {"content": []} if "content" in item else {"arguments": ""}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": replies.response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": started},
        *({"item_id": item["id"], "output_index": 0, **part} for part in parts),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": last},
    ]
    return [
        sse({**event, "sequence_number": number}, event["type"])
        for number, event in enumerate(events)
    ]


def response_text_events() -> list[bytes]:
    (item,) = replies.response()["output"]
    (part,) = item["content"]
    place = {"content_index": 0}
    pieces: list[dict[str, Any]] = [
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *(
            {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
            for piece in replies.PIECES
        ),
        {"type": "response.output_text.done", **place, "text": replies.TEXT, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
    ]
    return _response_events(item, pieces, replies.response())


def response_call_events() -> list[bytes]:
    kind = "response.function_call_arguments"
    pieces: list[dict[str, Any]] = [
        *({"type": f"{kind}.delta", "delta": piece} for piece in ARGUMENT_PIECES),
        {"type": f"{kind}.done", "arguments": "".join(ARGUMENT_PIECES), "name": "weather"},
    ]
    return _response_events(FUNCTION_CALL, pieces, response_call())


# --- anthropic -----------------------------------------------------------------------------


def message_call() -> dict[str, Any]:
    return {**replies.message([TOOL_USE]), "stop_reason": "tool_use"}


def message_call_events() -> list[bytes]:
    start, *_, delta, stop = replies.message_events()
    place = {"index": 0}
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", **place, "content_block": {**TOOL_USE, "input": {}}},
        *(
            {
                "type": "content_block_delta",
                **place,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in ARGUMENT_PIECES
        ),
        {"type": "content_block_stop", **place},
    ]
    said = [sse(event, event["type"]) for event in events]
    return [start, *said, delta.replace(b"end_turn", b"tool_use"), stop]


# --- gemini --------------------------------------------------------------------------------


def generated_call() -> dict[str, Any]:
    reply = replies.generated()
    part = {"functionCall": {"name": "weather", "args": ARGUMENTS}}
    reply["candidates"][0]["content"]["parts"] = [part]
    return reply


# --- rules ---------------------------------------------------------------------------------

Make = Callable[[], Any]


def _asks_for_a_tool(request: Request) -> bool:
    return b'"tools"' in request.body and RESULT not in request.body


def _wants_usage(request: Request) -> bool:
    return bool((request.json().get("stream_options") or {}).get("include_usage"))


def _answer(whole: Make, events: Callable[[Request], list[bytes]]) -> Callable[[Request], Reply]:
    return lambda request: (
        sse_reply(events(request)) if request.json().get("stream") else json_reply(whole())
    )


def play_tools(server: ReplayServer) -> None:
    """Rules before those of `play_every_api`: the tool is called once, then there is text."""
    rules: list[tuple[str, Callable[[Request], Reply]]] = [
        (
            "/chat/completions",
            _answer(chat_call, lambda request: chat_call_events(_wants_usage(request))),
        ),
        ("/responses", _answer(response_call, lambda _: response_call_events())),
        ("/messages", _answer(message_call, lambda _: message_call_events())),
        (":generateContent", lambda _: json_reply(generated_call())),
        (":streamGenerateContent", lambda _: sse_reply([sse(generated_call())])),
    ]
    for ending, reply in rules:
        server.on(
            lambda request, ending=ending: (  # type: ignore[misc]
                request.path.endswith(ending) and _asks_for_a_tool(request)
            ),
            reply,
            first=True,
        )
    server.on(
        lambda request: (
            request.path.endswith("/responses")
            and not _asks_for_a_tool(request)
            and bool(request.json().get("stream"))
        ),
        sse_reply(response_text_events()),
        first=True,
    )
