"""Only the base URL and the key are changed: answers, paths, headers, rows."""

import http.client
import json
from typing import Any

import anthropic
import openai
import pytest
from google import genai

from tests.replay import Reply, Request, json_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness
from tests.sdk.sdks import CONVERSATION, PROMPT, Sdk

KEY = KEYS["rich"]
CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
UPSTREAM_CREDENTIALS = {
    "openai": [("authorization", "Bearer sk-upstream-openai")],
    "anthropic": [("x-api-key", "sk-upstream-anthropic")],
    "gemini": [("x-goog-api-key", "sk-upstream-gemini")],
    "azure": [("api-key", "sk-upstream-azure")],
}


def credentials(request: Request) -> list[tuple[str, str]]:
    return [pair for pair in request.headers if pair[0].lower() in CREDENTIAL_HEADERS]


# --- every SDK -----------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("prefixed", [False, True])
def test_a_call(tollkeeper: Harness, sdk: Sdk, prefixed: bool, slash: str) -> None:
    prefix = f"/{sdk.provider}" if prefixed else ""
    assert sdk.ask(sdk.base(tollkeeper.url, prefix) + slash, KEY) == replies.TEXT
    (request,) = tollkeeper.provider.requests
    assert request.target == sdk.path
    assert credentials(request) == UPSTREAM_CREDENTIALS[sdk.provider]
    assert KEY not in request.raw_head.decode()
    (row,) = tollkeeper.rows()
    assert (row["provider"], row["model"], row["route"]) == (sdk.provider, sdk.model, sdk.route)
    assert (row["key"], row["team"], row["stream"]) == ("rich", "search", False)
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == (
        replies.INPUT_TOKENS,
        replies.OUTPUT_TOKENS,
    )
    assert row["http_status"] == 200
    assert float(row["cost_usd"]) > 0


def test_a_request_body_goes_on_unchanged(tollkeeper: Harness, sdk: Sdk) -> None:
    sdk.ask(sdk.base(tollkeeper.provider.url), KEY)
    sdk.ask(sdk.base(tollkeeper.url), KEY)
    direct, through = tollkeeper.provider.requests
    assert through.body == direct.body
    assert through.target == direct.target


def test_what_an_sdk_says_of_itself_goes_on(tollkeeper: Harness, sdk: Sdk) -> None:
    sdk.ask(sdk.base(tollkeeper.provider.url), KEY)
    sdk.ask(sdk.base(tollkeeper.url), KEY)
    direct, through = (
        {
            (name.lower(), value)
            for name, value in request.headers
            if name.lower()
            not in (*CREDENTIAL_HEADERS, "host", "accept-encoding", "connection", "content-length")
        }
        for request in tollkeeper.provider.requests
    )
    assert through == direct
    assert through >= {("content-type", "application/json")}
    assert tollkeeper.provider.requests[1].header("accept-encoding") == "identity"


def test_headers_that_stop_here(tollkeeper: Harness) -> None:
    own = {
        "x-tollkeeper-tags": "feature=search",
        "x-forwarded-for": "10.0.0.1",
        "baggage": "a=b",
        "x-mine": "kept",
    }
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        client.chat.completions.create(
            model=replies.CHAT_MODEL, messages=CONVERSATION, extra_headers=own
        )
    (request,) = tollkeeper.provider.requests
    sent = {name.lower() for name, _ in request.headers}
    assert sent & own.keys() == {"x-mine"}
    assert tollkeeper.rows()[0]["tags"] == {"feature": "search"}


def test_provider_headers_come_back(tollkeeper: Harness, override: Any) -> None:
    headers = [
        ("X-Request-Id", "req_up"),
        ("X-RateLimit-Remaining-Tokens", "7"),
        ("openai-processing-ms", "3"),
    ]
    override("/chat/completions", json_reply(replies.chat(), headers=headers))
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=replies.CHAT_MODEL, messages=CONVERSATION
        )
    assert raw.headers["x-request-id"] == "req_up"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "7"
    assert raw.headers["openai-processing-ms"] == "3"
    (row,) = tollkeeper.rows()
    assert raw.headers["x-tollkeeper-request-id"] == row["request_id"]
    assert raw.headers["x-tollkeeper-cost-usd"] == row["cost_usd"]


# --- where SDKs differ ---------------------------------------------------------------------


def test_base_urls_from_the_environment(
    tollkeeper: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{tollkeeper.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", tollkeeper.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", tollkeeper.url)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with openai.OpenAI() as oai, anthropic.Anthropic() as ant, genai.Client() as gem:
        oai.responses.create(model=replies.CHAT_MODEL, input=PROMPT)
        ant.messages.create(model=replies.MESSAGES_MODEL, max_tokens=500, messages=CONVERSATION)
        gem.models.generate_content(model=replies.GENERATE_MODEL, contents=PROMPT)
    assert [row["provider"] for row in tollkeeper.rows()] == ["openai", "anthropic", "gemini"]


def test_anthropics_token_from_the_environment(
    tollkeeper: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", tollkeeper.url)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    with anthropic.Anthropic() as client:
        client.messages.create(model=replies.MESSAGES_MODEL, max_tokens=5, messages=CONVERSATION)
    assert credentials(tollkeeper.provider.requests[0]) == UPSTREAM_CREDENTIALS["anthropic"]


def test_anthropic_keys_in_either_header(tollkeeper: Harness) -> None:
    for how in ({"api_key": KEY}, {"auth_token": KEY, "api_key": None}):
        with anthropic.Anthropic(base_url=tollkeeper.url, **how) as client:
            client.messages.create(
                model=replies.MESSAGES_MODEL, max_tokens=500, messages=CONVERSATION
            )
    connection = http.client.HTTPConnection(tollkeeper.url.removeprefix("http://"))
    body = json.dumps({"model": replies.MESSAGES_MODEL, "max_tokens": 5, "messages": []})
    connection.request("POST", "/v1/messages?beta=true", body, {"x-api-key": KEY})
    assert connection.getresponse().status == 200
    connection.close()
    for request in tollkeeper.provider.requests:
        assert credentials(request) == UPSTREAM_CREDENTIALS["anthropic"]
    assert tollkeeper.provider.requests[-1].query == "beta=true"
    assert len(tollkeeper.rows()) == 3


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"http_options": {"api_version": "v1beta"}}, "/v1beta/models/{}:generateContent"),
        (
            {"vertexai": True, "http_options": {}},
            "/v1beta1/publishers/google/models/{}:generateContent",
        ),
    ],
)
def test_versions_of_the_gemini_api(
    tollkeeper: Harness, options: dict[str, Any], path: str
) -> None:
    options["http_options"]["base_url"] = tollkeeper.url
    with genai.Client(api_key=KEY, **options) as client:
        reply = client.models.generate_content(model=replies.GENERATE_MODEL, contents=PROMPT)
    assert reply.text == replies.TEXT
    assert tollkeeper.provider.requests[0].path == path.format(replies.GENERATE_MODEL)
    assert tollkeeper.rows()[0]["provider"] == "gemini"


@pytest.mark.parametrize("prefix", ["/azure", ""])
def test_azure_openai(tollkeeper: Harness, prefix: str) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=tollkeeper.url + prefix, api_key=KEY, api_version="2025-01-01"
    ) as client:
        client.chat.completions.create(model=replies.CHAT_MODEL, messages=CONVERSATION)
    (request,) = tollkeeper.provider.requests
    deployment = f"/openai/deployments/{replies.CHAT_MODEL}/chat/completions"
    assert request.target == f"{deployment}?api-version=2025-01-01"
    assert credentials(request) == UPSTREAM_CREDENTIALS["azure"]
    assert tollkeeper.rows()[0]["provider"] == "azure"


def test_an_openai_base_url_without_v1_says_what_to_do(tollkeeper: Harness) -> None:
    with (
        openai.OpenAI(base_url=tollkeeper.url, api_key=KEY) as client,
        pytest.raises(openai.NotFoundError, match="/openai/") as caught,
    ):
        client.chat.completions.create(model=replies.CHAT_MODEL, messages=CONVERSATION)
    assert caught.value.code == "unknown_route"
    assert not tollkeeper.provider.requests


def test_an_anthropic_base_url_with_v1_says_what_to_do(tollkeeper: Harness) -> None:
    with (
        anthropic.Anthropic(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client,
        pytest.raises(anthropic.NotFoundError, match="leave it out of the base URL"),
    ):
        client.messages.create(model=replies.MESSAGES_MODEL, max_tokens=5, messages=CONVERSATION)
    assert len(tollkeeper.received) == 1
    assert not tollkeeper.provider.requests


def test_the_raw_path_and_query_go_on(tollkeeper: Harness) -> None:
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        assert client.models.retrieve("a/b", extra_query={"z": "1", "a": "%2F"}).id == "a/b"
    assert tollkeeper.provider.requests[0].target == "/v1/models/a%2Fb?z=1&a=%252F"
    assert not tollkeeper.rows()


# --- the other routes ----------------------------------------------------------------------


def test_audio_goes_on_as_the_form_it_came_in(tollkeeper: Harness, override: Any) -> None:
    usage = {"type": "tokens", "input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    override("/audio/transcriptions", json_reply({"text": replies.TEXT, "usage": usage}))
    audio = b"RIFF" + bytes(range(256)) * 400
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        text = client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("a.wav", audio), response_format="json"
        ).text
    assert text == replies.TEXT
    (request,) = tollkeeper.provider.requests
    assert audio in request.body
    (row,) = tollkeeper.rows()
    assert (row["route"], row["usage_source"]) == ("audio.transcriptions", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == (9, 4)
    assert 0 < float(row["cost_usd"]) <= float(row["hold_usd"])


def test_a_form_that_is_announced_otherwise_is_refused(tollkeeper: Harness) -> None:
    body = b'--a\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4o-transcribe\r\n--a--'
    for kind in ("multipart/form-data; boundary=b", "application/x-www-form-urlencoded"):
        connection = http.client.HTTPConnection(tollkeeper.url.removeprefix("http://"))
        headers = {"authorization": f"Bearer {KEY}", "content-type": kind}
        connection.request("POST", "/openai/v1/audio/transcriptions", body, headers)
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())["error"]["code"]) == (400, "bad_request")
        connection.close()
    assert not tollkeeper.provider.requests


def test_other_metered_openai_routes(tollkeeper: Harness) -> None:
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        embedded = client.embeddings.create(
            model="text-embedding-3-small", input="rain", encoding_format="float"
        )
        completed = client.completions.create(model="gpt-3.5-turbo-instruct", prompt=PROMPT)
    assert embedded.data[0].embedding == [0.5, -0.25]
    assert completed.choices[0].text == replies.TEXT
    assert [(row["route"], row["input_tokens"]) for row in tollkeeper.rows()] == [
        ("embeddings", replies.INPUT_TOKENS),
        ("completions", replies.INPUT_TOKENS),
    ]


def test_gemini_embeddings(tollkeeper: Harness) -> None:
    with genai.Client(api_key=KEY, http_options={"base_url": tollkeeper.url}) as client:
        reply = client.models.embed_content(model="gemini-embedding-001", contents=["rain"])
    assert reply.embeddings[0].values == [0.5, -0.25]
    (row,) = tollkeeper.rows()
    assert row["route"] in ("embedContent", "batchEmbedContents")


def test_routes_that_cost_nothing_leave_no_row(tollkeeper: Harness) -> None:
    with (
        openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as oai,
        anthropic.Anthropic(base_url=tollkeeper.url, api_key=KEY) as ant,
        genai.Client(api_key=KEY, http_options={"base_url": tollkeeper.url}) as gem,
    ):
        assert oai.responses.retrieve("resp_1").output_text == replies.TEXT
        assert not oai.moderations.create(input="rain").results[0].flagged
        counted = ant.messages.count_tokens(model=replies.MESSAGES_MODEL, messages=CONVERSATION)
        assert counted.input_tokens == replies.INPUT_TOKENS
        total = gem.models.count_tokens(model=replies.GENERATE_MODEL, contents=PROMPT)
        assert total.total_tokens == replies.INPUT_TOKENS
    assert len(tollkeeper.provider.requests) == 4
    assert not tollkeeper.rows()


def test_a_websocket_upgrade_is_answered_426(tollkeeper: Harness) -> None:
    connection = http.client.HTTPConnection(tollkeeper.url.removeprefix("http://"))
    headers = {
        "authorization": f"Bearer {KEY}",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    connection.request("GET", "/v1/responses", headers=headers)
    assert connection.getresponse().status == 426
    connection.close()
    assert not tollkeeper.provider.requests


# --- retries -------------------------------------------------------------------------------


def test_retries_of_an_sdk_are_calls_of_their_own(tollkeeper: Harness) -> None:
    provider = tollkeeper.provider
    provider.reset()
    overloaded = json_reply(
        {"error": {"message": "busy", "type": "server_error", "code": None}},
        status=500,
        headers=[("retry-after-ms", "1")],
    )
    provider.reply(overloaded, json_reply(replies.chat()))
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        client.chat.completions.create(model=replies.CHAT_MODEL, messages=CONVERSATION)
    rows = tollkeeper.rows()
    assert [(row["http_status"], row["client_retry"]) for row in rows] == [(500, 0), (200, 1)]
    assert float(rows[0]["cost_usd"]) == 0


def test_an_error_of_the_provider_comes_back_as_it_is(tollkeeper: Harness) -> None:
    provider = tollkeeper.provider
    provider.reset()
    error = {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit"}
    headers = [("retry-after-ms", "1"), ("x-request-id", "req_up")]
    provider.reply(*[json_reply({"error": error}, status=429, headers=headers)] * 3)
    with (
        openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model=replies.CHAT_MODEL, messages=CONVERSATION)
    assert (caught.value.body, caught.value.request_id) == (error, "req_up")
    assert len(provider.requests) == 3
    assert [float(row["cost_usd"]) for row in tollkeeper.rows()] == [0, 0, 0]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_kept_provider_connection_that_died_is_not_noticed(
    tollkeeper: Harness, sdk: Sdk, how: Any
) -> None:
    base = sdk.base(tollkeeper.url)
    sdk.ask(base, KEY)
    provider = tollkeeper.provider
    provider.reset()
    provider.reply(Reply(on_request=how), json_reply(sdk.whole()))
    assert sdk.ask(base, KEY) == replies.TEXT
    assert len(provider.requests) == 2
    assert len(tollkeeper.received) == 2
    assert len(tollkeeper.rows()) == 2
