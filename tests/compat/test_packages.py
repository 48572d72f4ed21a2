"""Packages that others build on, unchanged: only the base URL and the key are theirs to change."""

from decimal import Decimal
from typing import Any

import pytest

from tests.compat.answers import EMBEDDING, RESULT
from tests.compat.clients import CHAT, CLIENTS, EMBEDDERS, GENERATE, MESSAGES, RESPONSES, Client
from tests.compat.conftest import Run
from tests.compat.programs import PackageError
from tests.replay import sse_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness

KEY = KEYS["rich"]
CREDENTIALS = {
    "openai": ("authorization", "Bearer sk-upstream-openai"),
    "anthropic": ("x-api-key", "sk-upstream-anthropic"),
    "gemini": ("x-goog-api-key", "sk-upstream-gemini"),
}


@pytest.fixture(params=CLIENTS, ids=lambda client: client.id)
def client(request: pytest.FixtureRequest) -> Client:
    chosen: Client = request.param
    return chosen


def check_row(row: dict[str, Any], client: Client, *, streamed: bool) -> None:
    """One exact cost row of an answer in `replies`."""
    api = client.api
    route = api.stream_route if streamed else api.route
    assert (row["provider"], row["model"], row["route"]) == (api.provider, api.model, route)
    assert (row["key"], row["stream"]) == ("rich", streamed)
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == (
        replies.INPUT_TOKENS,
        replies.OUTPUT_TOKENS,
    )
    assert Decimal(row["cost_usd"]) == Decimal(api.cost_nanousd).scaleb(-9)


def check_credentials(tollkeeper: Harness, client: Client) -> None:
    """Nothing of the client's key goes on; the provider's own does."""
    name, value = CREDENTIALS[client.api.provider]
    for request in tollkeeper.provider.requests:
        assert KEY not in request.raw_head.decode()
        assert request.header(name) == value


def test_a_call(tools: Harness, client: Client, run: Run) -> None:
    assert run(client, "ask", tools.url, KEY) == replies.TEXT
    assert [request.target for request in tools.provider.requests] == [client.api.path]
    check_credentials(tools, client)
    (row,) = tools.rows()
    check_row(row, client, streamed=False)


def test_a_stream(tools: Harness, client: Client, run: Run) -> None:
    assert run(client, "text_streamed", tools.url, KEY) == replies.TEXT
    assert [request.target for request in tools.provider.requests] == [client.api.stream_path]
    check_credentials(tools, client)
    (row,) = tools.rows()
    check_row(row, client, streamed=True)


def test_a_stream_is_the_same_as_without_tollkeeper(
    tools: Harness, client: Client, run: Run
) -> None:
    direct = run(client, "stream", tools.provider.url, "any")
    through = run(client, "stream", tools.url, KEY)
    assert len(direct) >= len(replies.PIECES)
    assert _without_nulls(through) == _without_nulls(direct)


def _without_nulls(value: Any) -> Any:
    """Asked for usage, OpenAI says `"usage": null` in every other chunk."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("work", ["tool", "tool_streamed"])
def test_a_tool_is_called_and_answered(tools: Harness, client: Client, run: Run, work: str) -> None:
    assert run(client, work, tools.url, KEY) == replies.TEXT
    first, second = tools.provider.requests
    assert RESULT not in first.body
    assert RESULT in second.body
    assert len(tools.received) == 2
    rows = tools.rows()
    assert len(rows) == 2
    for row in rows:
        check_row(row, client, streamed=work == "tool_streamed")


@pytest.mark.parametrize("work", ["ask", "text_streamed"])
@pytest.mark.parametrize(
    ("key", "kind", "says"),
    [
        (KEYS["spent"], "spent", "budget"),
        (KEYS["spent-402"], "payment", "budget"),
        ("tk-wrong", "key", "Tollkeeper key"),
    ],
)
def test_a_refusal_is_final_at_once(
    tools: Harness, client: Client, run: Run, key: str, kind: str, says: str, work: str
) -> None:
    with pytest.raises(PackageError) as caught:
        run(client, work, tools.url, key)
    assert len(tools.received) == 1
    assert not tools.provider.requests
    assert not tools.rows()
    error = caught.value
    status = {"spent": client.spent_status, "payment": 402, "key": 401}[kind]
    assert error.status in (status, None)
    assert client.error(kind, streamed=work != "ask") in error.classes
    assert says in error.text


STREAMS = {
    CHAT: lambda: replies.chat_events(include_usage=True),
    RESPONSES: replies.response_events,
    MESSAGES: replies.message_events,
    GENERATE: replies.generated_events,
}


def test_a_stream_that_breaks(tollkeeper: Harness, client: Client, run: Run) -> None:
    """It raises, and sends nothing again: what was delivered is charged, once."""
    events = STREAMS[client.api]()
    broken = sse_reply(events, reset_after=sum(map(len, events[:-2])))
    path = client.api.stream_path.partition("?")[0]
    tollkeeper.provider.on(path, broken, first=True)
    with pytest.raises(PackageError):
        run(client, "text_streamed", tollkeeper.url, KEY)
    (row,) = tollkeeper.rows()
    assert len(tollkeeper.received) == len(tollkeeper.provider.requests) == 1
    assert (row["ending"], row["stream"]) == ("upstream_broken", True)
    assert 0 < Decimal(row["cost_usd"]) <= Decimal(row["hold_usd"])


@pytest.mark.parametrize("embedder", EMBEDDERS, ids=lambda client: client.id)
def test_embeddings(tollkeeper: Harness, embedder: Client, run: Run) -> None:
    assert run(embedder, "embed", tollkeeper.url, KEY) == EMBEDDING
    (request,) = tollkeeper.provider.requests
    assert request.target == embedder.api.path
    (row,) = tollkeeper.rows()
    assert (row["provider"], row["model"]) == (embedder.api.provider, embedder.api.model)
    assert (row["ending"], row["http_status"]) == ("complete", 200)
    if embedder.api.provider == "openai":  # $0.02 for a million tokens
        assert Decimal(row["cost_usd"]) == Decimal(20 * replies.INPUT_TOKENS).scaleb(-9)
    else:  # the reply has no counts
        assert row["usage_source"] == "estimated"
        assert 0 < Decimal(row["cost_usd"]) <= Decimal(row["hold_usd"])
