"""Batches and background responses through the running proxy, with the official SDKs: held at
submit, settled once by whatever tells their usage first."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.batch_provider import (
    JSONL,
    BatchProvider,
    a_failure,
    a_request,
    an_answer,
    lines,
)
from tests.e2e.stage import Stage, error_of, eventually
from tests.harness import KEY
from tests.replay import ReplayServer, Reply

BUDGETS = [{"scope": "organization/acme", "limit_usd": "1", "period": "total"}]
REQUESTS = lines(a_request(1), a_request(2))
ANSWERS = lines(an_answer(1, 10, 4), a_failure(2), an_answer(3, 30, 6))
COST = (40 * 75 + 10 * 300) / 10**9  # gpt-4o-mini at batch prices, USD


def cost_of(rows: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer() as server:
        yield server


@pytest.fixture
def stage(tmp_path: Path, server: ReplayServer) -> Iterator[Stage]:
    with Stage(tmp_path, provider=server, budgets=BUDGETS) as stage:
        yield stage


@pytest.fixture
def provider(stage: Stage) -> BatchProvider:
    return BatchProvider(stage.provider)


def sdk_of(stage: Stage) -> openai.OpenAI:
    url = f"{stage.app.url}/openai/v1"
    return stage.opened(openai.OpenAI(base_url=url, api_key=KEY, max_retries=0))


def claude_of(stage: Stage) -> anthropic.Anthropic:
    url = f"{stage.app.url}/anthropic"
    return stage.opened(anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0))


def submit(sdk: openai.OpenAI, requests: bytes = REQUESTS, **more: Any) -> Any:
    file = sdk.files.create(file=("input.jsonl", requests), purpose="batch")
    return sdk.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def settled(stage: Stage) -> list[dict[str, Any]]:
    """The rows of the one call: itself and its correction."""
    return eventually(lambda: rows if len(rows := stage.rows()) > 1 else [])


def check_settled(stage: Stage, cost_usd: float = COST) -> None:
    rows = settled(stage)
    assert len(rows) == 2
    assert cost_of(rows) == Decimal(str(cost_usd)).normalize()
    assert sorted(row["ending"] for row in rows) == ["complete", "open"]
    assert stage.app.findings() == []


def test_a_batch_is_held_and_settled_by_its_output_file(
    stage: Stage, provider: BatchProvider
) -> None:
    sdk = sdk_of(stage)
    batch = submit(sdk)
    assert batch.id == "batch_1"
    (row,) = stage.rows()
    assert (row["ending"], row["usage_source"], row["route"]) == ("open", "estimated", "batches")
    assert row["cost_usd"] == row["hold_usd"]
    bodies = len(REQUESTS) + 2 * 2048
    assert Decimal(row["cost_usd"]) < Decimal(bodies * 75 + 200 * 300) / 10**9
    assert stage.app.findings() == []

    provider.output = ANSWERS
    provider.finish()
    assert sdk.batches.retrieve(batch.id).output_file_id == "file-out"
    assert len(stage.rows()) == 1
    assert sdk.files.content("file-out").content == ANSWERS
    check_settled(stage)


def test_however_often_it_is_read_it_is_charged_once(stage: Stage, provider: BatchProvider) -> None:
    sdk = sdk_of(stage)
    submit(sdk)
    provider.output = ANSWERS
    provider.finish()
    with ThreadPoolExecutor(10) as threads:
        reads = [threads.submit(sdk.batches.retrieve, "batch_1") for _ in range(10)]
        reads += [threads.submit(sdk.files.content, "file-out") for _ in range(10)]
        assert all(read.result() for read in reads)
    check_settled(stage)
    sdk.files.content("file-out")
    sdk.batches.list()
    check_settled(stage)


def test_the_output_file_may_be_read_before_the_batch(
    stage: Stage, provider: BatchProvider
) -> None:
    sdk = sdk_of(stage)
    submit(sdk)
    provider.output = ANSWERS
    provider.finish()
    sdk.files.content("file-out")
    assert len(stage.rows()) == 1
    assert [each.id for each in sdk.batches.list()] == ["batch_1"]
    check_settled(stage)


def test_a_batchs_own_usage_settles_it(stage: Stage, provider: BatchProvider) -> None:
    sdk = sdk_of(stage)
    submit(sdk)
    usage = {"input_tokens": 40, "output_tokens": 10, "total_tokens": 50}
    provider.finish(usage=usage, model="gpt-4o-mini")
    sdk.batches.retrieve("batch_1")
    check_settled(stage)
    provider.output = lines(an_answer(1, 999, 999))
    sdk.files.content("file-out")
    check_settled(stage)


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled", "completed"])
def test_a_batch_without_results_costs_nothing(
    stage: Stage, provider: BatchProvider, status: str
) -> None:
    sdk = sdk_of(stage)
    submit(sdk)
    provider.finish(status=status, output_file_id=None)
    sdk.batches.cancel("batch_1")
    check_settled(stage, 0)


def test_a_part_of_the_output_settles_nothing(stage: Stage, provider: BatchProvider) -> None:
    sdk = sdk_of(stage)
    submit(sdk)
    provider.output = ANSWERS
    provider.finish()
    sdk.batches.retrieve("batch_1")
    part = Reply(206, JSONL, lines(an_answer(1, 10, 4)))
    stage.provider.on("/content", part, first=True)
    sdk.files.content("file-out", extra_headers={"range": "bytes=0-99"})
    assert len(stage.rows()) == 1


def test_a_broken_download_settles_nothing(stage: Stage, provider: BatchProvider) -> None:
    sdk = sdk_of(stage)
    submit(sdk)
    provider.output = ANSWERS
    provider.finish()
    sdk.batches.retrieve("batch_1")
    whole = provider.answer

    def broken(request: Any) -> Any:
        reply = whole(request)
        reply.close_after = len(lines(an_answer(1, 10, 4)))
        return reply

    stage.provider.on("/content", broken, first=True)
    with pytest.raises(openai.APIConnectionError):
        sdk.files.content("file-out")
    assert len(stage.rows()) == 1
    stage.provider.on("/content", whole, first=True)
    sdk.files.content("file-out")
    check_settled(stage)


def test_a_restart_between_submit_and_settling(tmp_path: Path, server: ReplayServer) -> None:
    with Stage(tmp_path, provider=server, budgets=BUDGETS) as stage:
        provider = BatchProvider(server)
        file = sdk_of(stage).files.create(file=("in.jsonl", REQUESTS), purpose="batch")
    with Stage(tmp_path, provider=server, budgets=BUDGETS) as stage:
        sdk_of(stage).batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    provider.output = ANSWERS
    provider.finish()
    with Stage(tmp_path, provider=server, budgets=BUDGETS) as stage:
        sdk_of(stage).batches.retrieve("batch_1")
    with Stage(tmp_path, provider=server, budgets=BUDGETS) as stage:
        sdk_of(stage).files.content("file-out")
        check_settled(stage)


def test_money_that_was_not_needed_is_free_again(tmp_path: Path, server: ReplayServer) -> None:
    hold = (2048 * 2 + 10**4) * 75 / 10**9
    budgets = [{"scope": "organization/acme", "limit_usd": str(hold), "period": "total"}]
    with Stage(tmp_path, provider=server, budgets=budgets) as stage:
        provider, sdk = BatchProvider(server), sdk_of(stage)
        large = lines(a_request(1, max_tokens=1), a_request(2, max_tokens=1, user="x" * 9000))
        submit(sdk, large)
        with pytest.raises(openai.RateLimitError):
            submit(sdk, large)
        provider.output = lines(an_answer(1, 10, 1))
        provider.finish()
        sdk.batches.retrieve("batch_1")
        sdk.files.content("file-out")
        provider.batch.id = "batch_2"
        assert eventually(lambda: submit_again(sdk, large)).id == "batch_2"


def submit_again(sdk: openai.OpenAI, requests: bytes) -> Any:
    try:
        return submit(sdk, requests)
    except openai.RateLimitError:
        return None


def test_no_budget_no_batch(tmp_path: Path, server: ReplayServer) -> None:
    budgets = [{"scope": "organization/acme", "limit_usd": 0, "period": "total"}]
    with Stage(tmp_path, provider=server, budgets=budgets) as stage:
        BatchProvider(server)
        sdk = sdk_of(stage)
        file = sdk.files.create(file=("in.jsonl", REQUESTS), purpose="batch")
        seen = stage.seen()
        with pytest.raises(openai.RateLimitError) as refusal:
            sdk.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        assert refusal.value.code == "budget_exceeded"
        with pytest.raises(openai.RateLimitError):
            sdk.responses.create(model="gpt-4o-mini", input="hi", background=True)
        with pytest.raises(anthropic.RateLimitError):
            claude_of(stage).messages.batches.create(requests=[a_message(1)])
        assert stage.seen() == seen
        assert stage.rows() == []


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        (lines(a_request(1), {"custom_id": "x"}), "line 2 is no request"),
        (b"not json\n", "line 1 is no request"),
        (b"\n", "no requests"),
        (lines(a_request(1) | {"url": "/v1/videos"}), "batches to '/v1/videos'"),
        (lines(a_request(1), a_request(2, n=0)), "line 2: `n` must be"),
    ],
)
def test_what_cannot_be_priced_is_refused(
    stage: Stage, provider: BatchProvider, requests: bytes, words: str
) -> None:
    with pytest.raises(openai.PermissionDeniedError, match=words) as refusal:
        submit(sdk_of(stage), requests)
    assert refusal.value.code == "file_not_priced"
    assert [request.path for request in stage.provider.requests] == ["/v1/files"]


@pytest.mark.parametrize("model", ["gpt-3.5-turbo-instruct", "no-such-model"])
def test_a_model_without_a_price_for_batches_is_refused(
    stage: Stage, provider: BatchProvider, model: str
) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refusal:
        submit(sdk_of(stage), lines(a_request(1, model)))
    assert refusal.value.code == "model_not_priced"


def test_a_file_that_was_uploaded_elsewhere_is_refused(
    stage: Stage, provider: BatchProvider
) -> None:
    sdk = sdk_of(stage)
    with pytest.raises(openai.PermissionDeniedError, match="through Tollkeeper") as refusal:
        sdk.batches.create(
            input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"
        )
    assert refusal.value.code == "file_not_priced"
    file = sdk.files.create(file=("in.jsonl", REQUESTS), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
        )


def test_files_for_other_purposes_are_passed_on(stage: Stage, provider: BatchProvider) -> None:
    sdk = sdk_of(stage)
    file = sdk.files.create(file=("a.bin", b"\0\1" * 10_000), purpose="user_data")
    assert b"\0\1" * 10_000 in provider.uploads[0]
    with pytest.raises(openai.PermissionDeniedError, match="through Tollkeeper"):
        sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    sdk.files.retrieve(file.id)
    assert stage.rows() == []


def test_a_chunked_upload_of_many_lines(stage: Stage, provider: BatchProvider) -> None:
    """As openai-js sends a stream; the purpose comes behind the file."""
    requests = lines(*(a_request(number, user="x" * 500) for number in range(3_000)))
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    tail = b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'

    def pieces() -> Iterator[bytes]:
        stream = io.BytesIO(head + requests + tail)
        while piece := stream.read(10_007):
            yield piece

    answer = httpx.post(
        f"{stage.app.url}/openai/v1/files",
        content=pieces(),
        headers={
            "authorization": f"Bearer {KEY}",
            "content-type": "multipart/form-data; boundary=b",
        },
    )
    assert answer.status_code == 200
    assert provider.uploads == [head + requests + tail]
    sdk_of(stage).batches.create(
        input_file_id=answer.json()["id"],
        endpoint="/v1/chat/completions",
        completion_window="24h",
    )
    (row,) = stage.rows()
    body = len(requests) - 3_000 * 70
    assert Decimal(row["cost_usd"]) > Decimal((body + 3_000 * 2048) * 75) / 10**9
    assert stage.app.findings() == []


def test_a_form_that_may_be_read_in_two_ways_is_refused(
    stage: Stage, provider: BatchProvider
) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n'
    answer = stage.http.post(
        "/openai/v1/files",
        content=part * 2 + b"--b--\r\n",
        headers={
            "authorization": f"Bearer {KEY}",
            "content-type": "multipart/form-data; boundary=b",
        },
    )
    assert (answer.status_code, error_of(answer)["code"]) == (400, "bad_request")
    assert provider.uploads == []


# --- message batches of anthropic -----------------------------------------------------------


def a_message(number: int, model: str = "claude-sonnet-4-5") -> Any:
    messages = [{"role": "user", "content": "hi"}]
    params = {"model": model, "max_tokens": 100, "messages": messages}
    return {"custom_id": f"r{number}", "params": params}


def a_result(number: int, given: int, made: int, model: str = "claude-sonnet-4-5") -> Any:
    message = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "ho"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": given, "output_tokens": made, "service_tier": "batch"},
    }
    return {"custom_id": f"r{number}", "result": {"type": "succeeded", "message": message}}


FAILED = [
    {"custom_id": "r8", "result": {"type": "errored", "error": {"type": "error"}}},
    {"custom_id": "r9", "result": {"type": "expired"}},
]


def end(provider: BatchProvider, succeeded: int) -> None:
    provider.messages.fields = {
        "processing_status": "ended",
        "request_counts": {"succeeded": succeeded, "errored": 1, "processing": 0},
        "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
    }


def test_a_message_batch_is_settled_by_its_results(stage: Stage, provider: BatchProvider) -> None:
    claude = claude_of(stage)
    batch = claude.messages.batches.create(requests=[a_message(1), a_message(2)])
    (row,) = stage.rows()
    assert (row["ending"], row["route"]) == ("open", "messages.batches")
    end(provider, 2)
    provider.output = lines(a_result(1, 100, 10), a_result(2, 50, 5), *FAILED)
    results = list(claude.messages.batches.results(batch.id))  # of the rewritten results_url
    assert [each.custom_id for each in results] == ["r1", "r2", "r8", "r9"]
    check_settled(stage, (150 * 1500 + 15 * 7500) / 10**9)
    with ThreadPoolExecutor(10) as threads:
        for _ in threads.map(claude.messages.batches.results, [batch.id] * 10):
            pass
    check_settled(stage, (150 * 1500 + 15 * 7500) / 10**9)


def test_a_message_batch_of_several_models_is_itemised(
    stage: Stage, provider: BatchProvider
) -> None:
    claude, other = claude_of(stage), "claude-haiku-4-5"
    requests = [a_message(1), a_message(2, other), a_message(3, other)]
    batch = claude.messages.batches.create(requests=requests)
    end(provider, 3)
    provider.output = lines(a_result(1, 100, 10), a_result(2, 50, 5, other))
    list(claude.messages.batches.results(batch.id))
    rows = settled(stage)
    assert cost_of(rows) == Decimal(100 * 1500 + 10 * 7500 + 50 * 500 + 5 * 2500) / 10**9
    items = next(row["cost_items"] for row in rows if row["ending"] == "complete")
    assert {name.partition("@")[2] for name, *_ in map(list_of, items)} == {"", "claude-sonnet-4-5"}
    assert stage.app.findings() == []


def list_of(item: Any) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else list(item)


def test_a_message_batch_without_successes_costs_nothing(
    stage: Stage, provider: BatchProvider
) -> None:
    claude = claude_of(stage)
    claude.messages.batches.create(requests=[a_message(1)])
    end(provider, 0)
    (listed,) = claude.messages.batches.list().data
    url = f"{stage.app.url}/anthropic/v1/messages/batches/msgbatch_1/results"
    assert listed.results_url == url
    check_settled(stage, 0)


# --- background responses -------------------------------------------------------------------


def test_a_background_response_is_charged_when_its_usage_appears(
    stage: Stage, provider: BatchProvider
) -> None:
    sdk = sdk_of(stage)
    response = sdk.responses.create(model="gpt-4o-mini", input="hi", background=True)
    assert (response.id, response.status) == ("resp_1", "queued")
    (row,) = stage.rows()
    assert (row["ending"], row["cost_usd"]) == ("open", row["hold_usd"])
    sdk.responses.retrieve("resp_1")
    assert len(stage.rows()) == 1
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    provider.response.fields = {"status": "completed", "usage": usage}
    with ThreadPoolExecutor(10) as threads:
        reads = [threads.submit(sdk.responses.retrieve, "resp_1") for _ in range(10)]
        assert {read.result().status for read in reads} == {"completed"}
    check_settled(stage, (100 * 150 + 20 * 600) / 10**9)


def test_a_failed_background_response_costs_nothing(stage: Stage, provider: BatchProvider) -> None:
    sdk = sdk_of(stage)
    sdk.responses.create(model="gpt-4o-mini", input="hi", background=True)
    provider.response.fields = {"status": "failed", "usage": None}
    sdk.responses.retrieve("resp_1")
    rows = settled(stage)
    assert cost_of(rows) == 0
    assert stage.app.findings() == []


def test_a_cancelled_background_response_is_estimated(
    stage: Stage, provider: BatchProvider
) -> None:
    sdk = sdk_of(stage)
    sdk.responses.create(model="gpt-4o-mini", input="hi" * 20, background=True)
    provider.response.fields = {"status": "cancelled", "usage": None}
    sdk.responses.cancel("resp_1")
    rows = settled(stage)
    correction = next(row for row in rows if row["ending"] == "cut")
    assert correction["usage_source"] == "estimated"
    assert 0 < cost_of(rows) < Decimal("0.00001")
    assert stage.app.findings() == []


def test_reads_of_other_responses_stay_free(stage: Stage, provider: BatchProvider) -> None:
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    provider.response.fields = {"status": "completed", "usage": usage, "background": False}
    sdk_of(stage).responses.retrieve("resp_1")
    assert stage.rows() == []
