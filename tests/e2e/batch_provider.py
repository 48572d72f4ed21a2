"""A provider of batches, files and background responses behind the replay server."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.replay import ReplayServer, Reply, Request, json_reply

JSONL = [("content-type", "application/x-ndjson")]


def lines(*objects: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects)


def a_request(number: int, model: str = "gpt-4o-mini", **body: Any) -> dict[str, Any]:
    """One line of an input file."""
    messages = [{"role": "user", "content": "hi"}]
    return {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "messages": messages, "max_tokens": 100} | body,
    }


def an_answer(number: int, prompt: int, completion: int, model: str = "gpt-4o-mini") -> Any:
    """One line of an output file."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    body = {"id": f"chatcmpl-{number}", "object": "chat.completion", "model": model}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ho"}}
    response = {"status_code": 200, "body": body | {"choices": [choice], "usage": usage}}
    return {"id": f"b{number}", "custom_id": f"r{number}", "response": response, "error": None}


def a_failure(number: int) -> Any:
    error = {"error": {"message": "no"}}
    response = {"status_code": 400, "body": error}
    return {"id": f"b{number}", "custom_id": f"r{number}", "response": response, "error": None}


@dataclass
class Work:
    """What becomes of a batch or a response: its fields in replies."""

    id: str
    fields: dict[str, Any] = field(default_factory=dict)


class BatchProvider:
    def __init__(self, server: ReplayServer) -> None:
        self.server = server
        self.batch = Work("batch_1", {"status": "in_progress", "output_file_id": None})
        self.response = Work("resp_1", {"status": "queued", "usage": None})
        self.messages = Work(
            "msgbatch_1",
            {
                "processing_status": "in_progress",
                "request_counts": {"processing": 2, "succeeded": 0},
                "results_url": None,
            },
        )
        self.output = b""
        self.uploads: list[bytes] = []
        self.files = 0
        server.on(lambda request: True, self.answer, first=True)

    def finish(self, **fields: Any) -> None:
        self.batch.fields = {"status": "completed", "output_file_id": "file-out"} | fields

    def answer(self, request: Request) -> Reply:
        path, method = request.path, request.method
        if path.endswith("/files") and method == "POST":
            self.files += 1
            self.uploads.append(request.body)
            name = f"file-{self.files}"
            return json_reply({"id": name, "object": "file", "purpose": "batch", "bytes": 1})
        if path.endswith("/content"):
            return Reply(200, JSONL, self.output)
        if path.endswith("/results"):
            return Reply(200, JSONL, self.output)
        if "/messages/batches" in path:
            return json_reply(self._page(request, self.messages, {"type": "message_batch"}))
        if "/batches" in path:
            return json_reply(self._page(request, self.batch, {"object": "batch"}))
        if "/responses" in path:
            work = {"id": self.response.id, "object": "response", "background": True}
            return json_reply(work | {"model": "gpt-4o-mini", "output": []} | self.response.fields)
        return json_reply({"id": path.rsplit("/", 1)[-1], "object": "file"})

    def _page(self, request: Request, work: Work, kind: dict[str, Any]) -> dict[str, Any]:
        one = {"id": work.id} | kind | work.fields
        listed = request.path.endswith("/batches") and request.method == "GET"
        return {"object": "list", "data": [one], "has_more": False} if listed else one
