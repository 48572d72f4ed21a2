"""What is read along on reads of message batches and their results."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.anthropic import MessageReader
from proxy.providers.anthropic_batches import watched_route, watcher
from proxy.providers.base import Found, Watcher

RESULTS_PATH = "/v1/messages/batches/msgbatch_1/results"


def a_watcher(path: str) -> Watcher:
    route = watched_route("GET", path)
    assert route is not None
    found = watcher(route, path, lambda: MessageReader({}))
    assert found is not None
    return found


def read(path: str, body: bytes, cuts: tuple[int, ...] = ()) -> list[Found]:
    each = a_watcher(path)
    each.begin("application/x-jsonl")
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for begin, end in pairwise(edges):
        each.feed(body[begin:end])
    return each.found()


def a_result(number: int, kind: str = "succeeded", **message: Any) -> bytes:
    result: dict[str, Any] = {"type": kind}
    if kind == "succeeded":
        usage = {"input_tokens": 10, "output_tokens": number}
        result["message"] = {
            "id": f"msg_{number}", "type": "message", "model": "claude-sonnet-4-5",
            "content": [], "usage": usage,
        } | message  # fmt: skip
    return json.dumps({"custom_id": str(number), "result": result}).encode() + b"\n"


RESULTS = a_result(1) + a_result(2, "errored") + a_result(3) + a_result(4, "canceled")


@given(st.lists(st.integers(0, 5000), max_size=8).map(tuple))
def test_only_what_succeeded_costs_something(cuts: tuple[int, ...]) -> None:
    (found,) = read(RESULTS_PATH, RESULTS, cuts)
    assert (found.kind, found.object_id) == ("batch", "msgbatch_1")
    assert found.result is not None
    used = [used for _, used in found.result.groups]
    assert sum(int(str(each["input_tokens"])) for each in used) == 20
    assert sum(int(str(each["output_tokens"])) for each in used) == 4


@pytest.mark.parametrize(
    "body",
    [
        RESULTS[:-30],
        RESULTS + b"<html>\n",
        a_result(1) + a_result(2, usage=None),
        b"[" * 100_000,
        b"x" * (80 * 2**20),
    ],
    ids=["cut", "nonsense", "without usage", "deep", "one endless line"],
)
def test_what_is_not_clear_settles_nothing(body: bytes) -> None:
    assert read(RESULTS_PATH, body) == []


def a_batch(**fields: Any) -> dict[str, Any]:
    return {
        "id": "msgbatch_1", "type": "message_batch", "processing_status": "ended",
        "request_counts": {"succeeded": 0, "errored": 2},
    } | fields  # fmt: skip


def test_a_batch_without_successes_costs_nothing() -> None:
    (found,) = read("/v1/messages/batches/msgbatch_1", json.dumps(a_batch()).encode())
    assert found.result is not None
    assert found.result.groups == []


@pytest.mark.parametrize(
    "fields",
    [
        {"processing_status": "in_progress"},
        {"request_counts": {"succeeded": 1, "errored": 1}},
        {"request_counts": {}},
        {"request_counts": None},
        {"type": "message"},
        {"id": 7},
    ],
)
def test_other_batches_settle_nothing(fields: dict[str, Any]) -> None:
    assert read("/v1/messages/batches", json.dumps({"data": [a_batch(**fields)]}).encode()) == []


def test_results_are_where_the_client_reaches_us() -> None:
    each = a_watcher("/v1/messages/batches")
    body = b'{"data": [{"results_url": "https://api.test/v1/messages/batches/msgbatch_1/results"}]}'
    edited = each.edited(body, b"http://proxy.test/anthropic/v1/messages/batches")
    assert json.loads(edited)["data"][0]["results_url"] == (
        "http://proxy.test/anthropic/v1/messages/batches/msgbatch_1/results"
    )
    assert each.edited(body, b"http://proxy.test/elsewhere") == body


@given(st.sampled_from(["/v1/messages/batches/b", RESULTS_PATH]), st.binary(min_size=1))
def test_nonsense_settles_nothing_that_cost_something(path: str, body: bytes) -> None:
    assert all(found.result is None or not found.result.groups for found in read(path, body))
