"""What is read along on reads of files, batches and background responses."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.base import Found, Watcher
from proxy.providers.batch_lines import RequestLines
from proxy.providers.openai_batches import BATCHES, watched_route, watcher

USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
CHAT = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
READ = ("input_tokens", "output_tokens")


def a_watcher(method: str, path: str) -> Watcher:
    route = watched_route(method, path)
    assert route is not None

    def lines(_routes: frozenset[str]) -> RequestLines:
        raise AssertionError("nothing is uploaded here")

    found = watcher(route, path, b"", lines=lines)
    assert found is not None
    return found


def read(
    path: str, body: bytes, content_type: str = "application/json", cuts: tuple[int, ...] = ()
) -> list[Found]:
    each = a_watcher("GET", path)
    each.begin(content_type)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for begin, end in pairwise(edges):
        each.feed(body[begin:end])
    return each.found()


def a_response(**fields: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "model": "gpt-5", "background": True,
        "status": "completed", "output": [], "usage": USAGE,
    } | fields  # fmt: skip


def a_batch(**fields: Any) -> dict[str, Any]:
    return {"id": "batch_1", "object": "batch", "status": "completed"} | fields


def as_lines(*documents: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in documents)


def an_answer(number: int, body: object) -> dict[str, Any]:
    return {"custom_id": str(number), "response": {"status_code": 200, "body": body}}


# --- background responses -------------------------------------------------------------------


def as_stream(*documents: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in documents
    )


STREAM = as_stream(
    {"type": "response.queued", "response": a_response(status="queued", usage=None)},
    {"type": "response.output_text.delta", "delta": "hello"},
    {"type": "response.completed", "response": a_response()},
)


@given(st.lists(st.integers(0, 5000), max_size=8).map(tuple))
def test_a_background_response_that_is_read_as_a_stream(cuts: tuple[int, ...]) -> None:
    """https://platform.openai.com/docs/guides/background: `GET /v1/responses/ID?stream=true`."""
    (found,) = read("/v1/responses/resp_1", STREAM, "text/event-stream", cuts)
    assert (found.kind, found.object_id) == ("response", "resp_1")
    assert found.result is not None
    ((model, used),) = found.result.groups
    assert model == "gpt-5"
    assert [used[name] for name in READ] == [100, 20]


@given(st.integers(1, len(STREAM) - 3))
def test_a_stream_that_breaks_off_settles_nothing(length: int) -> None:
    assert read("/v1/responses/resp_1", STREAM[:length], "text/event-stream") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "queued", "usage": None},
        {"status": "in_progress", "usage": None},
        {"background": False},
        {"background": None},
        {"object": "thing"},
    ],
)
def test_what_is_not_over_or_not_in_the_background_settles_nothing(fields: dict[str, Any]) -> None:
    assert read("/v1/responses/resp_1", json.dumps(a_response(**fields)).encode()) == []


def test_an_incomplete_one_costs_its_usage() -> None:
    body = json.dumps(a_response(status="incomplete")).encode()
    (found,) = read("/v1/responses/resp_1", body)
    assert found.result is not None
    assert [found.result.groups[0][1][name] for name in READ] == [100, 20]


def test_a_failed_one_costs_nothing_and_a_cancelled_one_what_it_said() -> None:
    (failed,) = read(
        "/v1/responses/resp_1", json.dumps(a_response(status="failed", usage=None)).encode()
    )
    assert failed.result is not None
    assert (failed.result.groups, failed.result.ending) == ([], "upstream_error")
    text = [{"type": "message", "content": [{"type": "output_text", "text": "x" * 40}]}]
    body = json.dumps(a_response(status="cancelled", usage=None, output=text)).encode()
    (cancelled,) = read("/v1/responses/resp_1", body)
    assert cancelled.result is not None
    ((_, made),) = cancelled.result.groups
    assert cancelled.result.source == "estimated"
    assert type(made["output_tokens"]) is int
    assert made["output_tokens"] > 0


# --- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling", None])
def test_a_batch_that_goes_on_settles_nothing(status: str | None) -> None:
    body = json.dumps(a_batch(status=status, usage=USAGE)).encode()
    assert read("/v1/batches/batch_1", body) == []


def test_a_page_of_batches_tells_of_those_that_are_over() -> None:
    page = {
        "object": "list",
        "data": [
            a_batch(output_file_id="file-9"),
            a_batch(id="batch_2", status="in_progress"),
            a_batch(id="batch_3", status="expired"),
            "nonsense",
        ],
    }
    done, expired = read("/v1/batches", json.dumps(page).encode())
    assert (done.object_id, done.outputs, done.result) == ("batch_1", ["file-9"], None)
    assert expired.object_id == "batch_3"
    assert expired.result is not None
    assert expired.result.groups == []


def test_a_batchs_own_usage_is_a_total_at_the_batch_price() -> None:
    body = json.dumps(a_batch(model="gpt-5", usage=USAGE, output_file_id="file-9")).encode()
    (found,) = read("/v1/batches/batch_1", body)
    assert found.result is not None
    assert found.result.total
    ((model, used),) = found.result.groups
    assert (model, used["service_tier"], used["input_tokens"]) == ("gpt-5", "batch", 100)


# --- results --------------------------------------------------------------------------------

RESULTS = as_lines(
    an_answer(1, {"id": "c", "object": "chat.completion", "model": "gpt-5", "usage": CHAT}),
    an_answer(2, a_response(background=False)),
    {"custom_id": "3", "response": {"status_code": 400, "body": {"error": {"code": "x"}}}},
    {"custom_id": "4", "response": None, "error": {"code": "batch_expired"}},
)


@given(st.lists(st.integers(0, 5000), max_size=8).map(tuple))
def test_results_add_up_however_they_arrive(cuts: tuple[int, ...]) -> None:
    (found,) = read("/v1/files/file-9/content", RESULTS, cuts=cuts)
    assert (found.kind, found.object_id) == ("file", "file-9")
    assert found.result is not None
    used = [used for _, used in found.result.groups]
    assert sum(int(str(each["input_tokens"])) for each in used) == 107
    assert sum(int(str(each["output_tokens"])) for each in used) == 23


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"some other file\n",
        b'{"custom_id": "1"',
        as_lines(an_answer(1, {"object": "chat.completion", "model": "gpt-5"})),
    ],
)
def test_what_are_no_whole_results_settles_nothing(body: bytes) -> None:
    assert read("/v1/files/file-9/content", body) == []


@given(st.sampled_from(["/v1/batches/b", "/v1/responses/r", "/v1/files/f/content"]), st.binary())
def test_nonsense_settles_nothing(path: str, body: bytes) -> None:
    assert read(path, body) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/batches/batch_1"),
        ("GET", "/v1/batches/batch_1/cancel"),
        ("DELETE", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/files/file-1/content"),
    ],
)
def test_other_calls_are_not_watched(method: str, path: str) -> None:
    assert watched_route(method, path) in (None, BATCHES)
