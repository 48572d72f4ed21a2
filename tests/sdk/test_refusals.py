"""Refusals surface as each SDK's own exceptions, with its own fields, after exactly one request."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors

from tests.replay import Gate, json_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness
from tests.sdk.sdks import CONVERSATION, PROMPT, Sdk


def refused(tollkeeper: Harness, sdk: Sdk, key: str, kind: str, *, streamed: bool = False) -> Any:
    """The exception an SDK raised; nothing reached the provider, and one request reached us."""
    base, seen = sdk.base(tollkeeper.url), list[Any]()
    call = partial(sdk.stream, base, key, seen) if streamed else partial(sdk.ask, base, key)
    with pytest.raises(sdk.errors[kind]) as caught:
        call()
    assert not seen
    assert len(tollkeeper.received) == 1
    assert not tollkeeper.provider.requests
    assert not tollkeeper.rows()
    return caught.value


def status_of(error: Any) -> int:
    return int(getattr(error, "status_code", None) or error.code)


# --- every SDK -----------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_spent_money(tollkeeper: Harness, sdk: Sdk, streamed: bool) -> None:
    error = refused(tollkeeper, sdk, KEYS["spent"], "spent", streamed=streamed)
    assert status_of(error) == 429
    assert "budget" in str(error).lower()


@pytest.mark.parametrize("streamed", [False, True])
def test_spent_money_as_402(tollkeeper: Harness, sdk: Sdk, streamed: bool) -> None:
    error = refused(tollkeeper, sdk, KEYS["spent-402"], "payment", streamed=streamed)
    assert status_of(error) == 402


@pytest.mark.parametrize("streamed", [False, True])
def test_a_wrong_key(tollkeeper: Harness, sdk: Sdk, streamed: bool) -> None:
    error = refused(tollkeeper, sdk, "tk-wrong", "key", streamed=streamed)
    assert status_of(error) == 401
    assert "tk-wrong" not in str(error)


def test_a_model_without_a_price(tollkeeper: Harness, sdk: Sdk) -> None:
    unknown = type(sdk)(**{**vars(sdk), "model": "no-such-model"})
    error = refused(tollkeeper, unknown, KEYS["rich"], "forbidden")
    assert status_of(error) == 403
    assert "no-such-model" in str(error)


def test_an_unreachable_provider_is_tried_again_by_the_sdk_alone(
    tollkeeper: Harness, sdk: Sdk, override: Any
) -> None:
    broken = json_reply({})
    broken.on_request = "close"
    override(lambda _: True, broken)
    with pytest.raises(sdk.errors["server"]) as caught:
        sdk.ask(sdk.base(tollkeeper.url), KEYS["rich"], max_retries=0)
    assert status_of(caught.value) == 502
    (row,) = tollkeeper.rows()
    assert float(row["cost_usd"]) == 0


# --- the fields of each API ----------------------------------------------------------------


def test_openai_fields(tollkeeper: Harness) -> None:
    with (
        openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEYS["spent"]) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model=replies.CHAT_MODEL, messages=CONVERSATION)
    error = caught.value
    assert (error.code, error.type) == ("budget_exceeded", "insufficient_quota")
    assert isinstance(error.body, dict)
    assert error.body["param"] is None
    assert error.body["message"] in str(error)
    assert error.body["details"].keys() >= {
        "scope",
        "period",
        "limit",
        "spent",
        "held",
        "resets_at",
    }
    headers = error.response.headers
    assert error.request_id == headers["x-tollkeeper-request-id"]
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers
    assert headers["x-tollkeeper-resets-at"] == error.body["details"]["resets_at"]


def test_anthropic_fields(tollkeeper: Harness) -> None:
    with (
        anthropic.Anthropic(base_url=tollkeeper.url, api_key=KEYS["spent"]) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(model=replies.MESSAGES_MODEL, max_tokens=500, messages=CONVERSATION)
    error = caught.value
    body: Any = error.body
    assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
    assert body["request_id"] == error.request_id
    assert error.request_id == error.response.headers["request-id"]
    assert body["error"]["details"]["error_code"] == "budget_exceeded"
    assert error.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("tk-wrong", "authentication_error"),
        (KEYS["spent-402"], "billing_error"),
    ],
)
def test_anthropic_types_follow_the_status(tollkeeper: Harness, key: str, kind: str) -> None:
    with (
        anthropic.Anthropic(base_url=tollkeeper.url, api_key=key) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(model=replies.MESSAGES_MODEL, max_tokens=500, messages=CONVERSATION)
    body: Any = caught.value.body
    assert body["error"]["type"] == kind


def test_gemini_fields(tollkeeper: Harness) -> None:
    with (
        genai.Client(api_key=KEYS["spent"], http_options={"base_url": tollkeeper.url}) as client,
        pytest.raises(genai_errors.ClientError) as caught,
    ):
        client.models.generate_content(model=replies.GENERATE_MODEL, contents=PROMPT)
    error = caught.value
    assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED")
    assert "budget" in (error.message or "")
    details: Any = error.details
    infos = {item["@type"].rpartition(".")[2]: item for item in details["error"]["details"]}
    assert infos["ErrorInfo"]["reason"] == "BUDGET_EXCEEDED"
    (seconds,) = re.findall(r"^(\d+)s$", infos["RetryInfo"]["retryDelay"])
    assert int(seconds) > 300  # above this gemini-cli gives up at once


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        ("tk-wrong", replies.GENERATE_MODEL, "UNAUTHENTICATED"),
        (KEYS["rich"], "no-such-model", "PERMISSION_DENIED"),
    ],
)
def test_gemini_statuses(tollkeeper: Harness, key: str, model: str, status: str) -> None:
    with (
        genai.Client(api_key=key, http_options={"base_url": tollkeeper.url}) as client,
        pytest.raises(genai_errors.ClientError) as caught,
    ):
        client.models.generate_content(model=model, contents=PROMPT)
    assert caught.value.status == status


def test_a_route_without_a_meter(tollkeeper: Harness) -> None:
    with (
        openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEYS["rich"]) as client,
        pytest.raises(openai.PermissionDeniedError) as caught,
    ):
        client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file="file-1")
    assert caught.value.code == "route_not_metered"
    assert len(tollkeeper.received) == 1
    assert not tollkeeper.provider.requests


def test_busy_is_not_spent(tollkeeper: Harness, override: Any) -> None:
    gate = Gate()
    override("/chat/completions", json_reply(replies.chat(), before=gate))
    with openai.OpenAI(
        base_url=f"{tollkeeper.url}/v1", api_key=KEYS["narrow"], max_retries=0
    ) as client:
        create = client.chat.completions.with_raw_response.create
        first = _in_thread(lambda: create(model=replies.CHAT_MODEL, messages=CONVERSATION))
        tollkeeper.provider.wait(lambda server: len(server.requests) == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            create(model=replies.CHAT_MODEL, messages=CONVERSATION)
        gate.open()
        assert first().http_response.status_code == 200
    assert caught.value.code == "budget_busy"
    headers = caught.value.response.headers
    assert "x-should-retry" not in headers
    assert 1 <= int(headers["retry-after"]) <= 60


def _in_thread(work: Any) -> Any:
    """Start work in a thread; call the answer to wait for its result."""
    executor = ThreadPoolExecutor(1)
    future = executor.submit(work)

    def result() -> Any:
        value = future.result(30)
        executor.shutdown()
        return value

    return result
