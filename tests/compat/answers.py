"""What the providers answer to a question with a tool: a call of the tool, then the text."""

import json
from dataclasses import dataclass
from typing import Any

from tests.replay import ReplayServer, Reply, Request, json_reply, sse, sse_reply
from tests.sdk import replies

RESULT = b"rain-in-spain"  # what the tool says
EMBEDDING = [0.5, -0.25]


@dataclass(frozen=True)
class Tool:
    """A tool of the client's and how it is to be called."""

    name: str
    arguments: dict[str, Any]

    @property
    def pieces(self) -> tuple[str, str]:
        """The arguments as a stream cuts them."""
        text = json.dumps(self.arguments)
        return text[:10], text[10:]

    def function_call(self) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": self.name,
            "arguments": json.dumps(self.arguments),
            "status": "completed",
        }

    def use(self) -> dict[str, Any]:
        return {"type": "tool_use", "id": "toolu_1", "name": self.name, "input": self.arguments}


WEATHER = Tool("weather", {"place": "Spain"})  # of the drivers


# --- openai, chat completions --------------------------------------------------------------


def chat_call(tool: Tool) -> dict[str, Any]:
    reply = replies.chat()
    function = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
    call = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    reply["choices"] = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    return reply


def chat_call_events(tool: Tool, include_usage: bool) -> list[bytes]:
    started = {"id": "call_1", "type": "function", "function": {"name": tool.name}}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **started}]},
        *(
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            for piece in tool.pieces
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


def response_call(tool: Tool) -> dict[str, Any]:
    return {**replies.response(), "output": [tool.function_call()]}


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


def response_call_events(tool: Tool) -> list[bytes]:
    kind = "response.function_call_arguments"
    pieces: list[dict[str, Any]] = [
        *({"type": f"{kind}.delta", "delta": piece} for piece in tool.pieces),
        {"type": f"{kind}.done", "arguments": "".join(tool.pieces), "name": tool.name},
    ]
    return _response_events(tool.function_call(), pieces, response_call(tool))


# --- anthropic -----------------------------------------------------------------------------


def message_call(tool: Tool) -> dict[str, Any]:
    return {**replies.message([tool.use()]), "stop_reason": "tool_use"}


def message_call_events(tool: Tool) -> list[bytes]:
    start, *_, delta, stop = replies.message_events()
    place = {"index": 0}
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", **place, "content_block": {**tool.use(), "input": {}}},
        *(
            {
                "type": "content_block_delta",
                **place,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in tool.pieces
        ),
        {"type": "content_block_stop", **place},
    ]
    said = [sse(event, event["type"]) for event in events]
    return [start, *said, delta.replace(b"end_turn", b"tool_use"), stop]


# --- gemini --------------------------------------------------------------------------------


def generated_call(tool: Tool) -> dict[str, Any]:
    reply = replies.generated()
    part = {"functionCall": {"name": tool.name, "args": tool.arguments}}
    reply["candidates"][0]["content"]["parts"] = [part]
    return reply


# --- rules ---------------------------------------------------------------------------------


def _asks_for_a_tool(request: Request) -> bool:
    return b'"tools"' in request.body and RESULT not in request.body


def _wants_usage(request: Request) -> bool:
    return bool((request.json().get("stream_options") or {}).get("include_usage"))


def _calls(tool: Tool, request: Request) -> Reply:
    """The call of the tool that answers a request."""
    ending = request.path.rpartition("/")[2].rpartition(":")[2]
    streamed = bool(request.json().get("stream"))
    if ending == "completions":
        if streamed:
            return sse_reply(chat_call_events(tool, _wants_usage(request)))
        return json_reply(chat_call(tool))
    if ending == "responses":
        events = response_call_events
        return sse_reply(events(tool)) if streamed else json_reply(response_call(tool))
    if ending == "messages":
        events = message_call_events
        return sse_reply(events(tool)) if streamed else json_reply(message_call(tool))
    if ending == "generateContent":
        return json_reply(generated_call(tool))
    return sse_reply([sse(generated_call(tool))])


def play_tool(server: ReplayServer, tool: Tool) -> None:
    """Rules before those of `play_every_api`: the tool is called once, then there is text."""
    play_whole_responses(server)
    server.on(_asks_for_a_tool, lambda request: _calls(tool, request), first=True)


def play_whole_responses(server: ReplayServer) -> None:
    """Streams of text that have all events of an output item, as some packages want them."""
    server.on(
        lambda request: request.path.endswith("/responses") and bool(request.json().get("stream")),
        sse_reply(response_text_events()),
        first=True,
    )
