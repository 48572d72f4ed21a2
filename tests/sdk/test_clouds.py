"""boto3, AnthropicBedrock, AnthropicVertex and google-genai on Vertex AI, unchanged, through the
proxy; the provider's end checks what it is sent."""

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import anthropic
import boto3
import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError
from google import genai
from google.genai import errors as genai_errors
from google.oauth2.credentials import Credentials as GoogleCredentials

from proxy.providers.event_stream import message
from tests.harness import Running, a_config
from tests.replay import ReplayServer, Reply, Request, json_reply, sse_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness
from tests.sdk.replies import INPUT_TOKENS, OUTPUT_TOKENS, PIECES, TEXT

NOVA = "us.amazon.nova-lite-v1:0"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
VERTEX_CLAUDE = "claude-sonnet-4-5@20250929"
UPSTREAM = Credentials("AKUPSTREAM", "upstream secret")
HELLO: Any = [{"role": "user", "content": [{"text": "Where does the rain stay?"}]}]
ASKED: Any = [{"role": "user", "content": "Where does the rain stay?"}]
COUNTS = {"inputTokens": INPUT_TOKENS, "outputTokens": OUTPUT_TOKENS}
STREAM = [("content-type", "application/vnd.amazon.eventstream")]


def event(kind: str, body: dict[str, Any]) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, json.dumps(body).encode())


def converse_events() -> list[bytes]:
    return [
        event("messageStart", {"role": "assistant"}),
        *(
            event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})
            for piece in PIECES
        ),
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("messageStop", {"stopReason": "end_turn"}),
        event(
            "metadata",
            {
                "usage": {**COUNTS, "totalTokens": INPUT_TOKENS + OUTPUT_TOKENS},
                "metrics": {"latencyMs": 1},
            },
        ),
    ]


def chunk_events() -> list[bytes]:
    """Anthropic's events, wrapped; the last with Bedrock's metrics."""
    datas = [wrapped.split(b"data: ", 1)[1].strip() for wrapped in replies.message_events()]
    last = json.loads(datas[-1])
    counts = {"inputTokenCount": INPUT_TOKENS, "outputTokenCount": OUTPUT_TOKENS}
    last["amazon-bedrock-invocationMetrics"] = counts
    datas[-1] = json.dumps(last).encode()
    return [event("chunk", {"bytes": base64.b64encode(data).decode()}) for data in datas]


def stream(events: list[bytes]) -> Reply:
    return Reply(200, STREAM, events, framing="chunked")


CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}},
    "stopReason": "end_turn",
    "usage": {**COUNTS, "totalTokens": INPUT_TOKENS + OUTPUT_TOKENS},
    "metrics": {"latencyMs": 1},
}


def play(server: ReplayServer) -> None:
    server.on("/converse", json_reply(CONVERSED))
    server.on("/converse-stream", lambda _: stream(converse_events()))
    server.on("/invoke", json_reply(replies.message()))
    server.on("/invoke-with-response-stream", lambda _: stream(chunk_events()))
    server.on("/count-tokens", json_reply({"inputTokens": INPUT_TOKENS}))
    server.on(":generateContent", json_reply(replies.generated()))
    server.on(":streamGenerateContent", lambda _: sse_reply(replies.generated_events()))
    server.on("/models/count-tokens:rawPredict", json_reply({"input_tokens": INPUT_TOKENS}))
    server.on(":rawPredict", json_reply(replies.message()))
    server.on(":streamRawPredict", lambda _: sse_reply(replies.message_events()))


@pytest.fixture(scope="module")
def started(provider: ReplayServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = [
        {"name": name, "key_sha256": sha256(key.encode()).hexdigest()} for name, key in KEYS.items()
    ]
    keys[2]["refusal_status"] = 402  # spent-402
    signing = {
        "region": "us-east-1",
        "access_key_id": UPSTREAM.access_key,
        "secret_access_key": UPSTREAM.secret_key,
    }
    config = a_config(
        tmp_path_factory.mktemp("clouds"),
        provider.url,
        organizations={"acme": {"teams": {"search": {"keys": keys}}}},
        providers={
            "bedrock": {"base_url": provider.url, "aws": signing},
            "bedrock-by-key": {
                "dialect": "bedrock",
                "base_url": provider.url,
                "api_key": "bedrock-upstream-key",
                "prices": "bedrock",
            },
            "vertex": {"base_url": provider.url, "api_key": "ya29.upstream"},
        },
        budgets=[
            {"scope": f"key/{name}", "limit_usd": 0, "period": "day"}
            for name in ("spent", "spent-402")
        ],
    )
    with Running(config) as running:
        yield running


@pytest.fixture
def tollkeeper(started: Running, provider: ReplayServer) -> Iterator[Harness]:
    provider.reset()
    play(provider)
    harness = Harness(started, provider)
    harness.listen()
    yield harness
    harness.unlisten()


# --- clients -------------------------------------------------------------------------------


OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Clients of boto3 keep their connections until they are closed."""
    yield
    while OPENED:
        OPENED.pop().close()


def boto(endpoint: str | None, key: str, **options: Any) -> Any:
    """boto3 with credentials of its own for Amazon, which sign, and the key in a header."""
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKCLIENT",
        aws_secret_access_key="the client's",
        aws_session_token="the client's token",
        config=BotoConfig(connect_timeout=5, read_timeout=10),
        **options,
    )

    def add_key(request: Any, **_: Any) -> None:
        request.headers["x-tollkeeper-key"] = key

    OPENED.append(client)
    client.meta.events.register("before-sign.bedrock-runtime.*", add_key)
    return client


def genai_vertex(url: str, key: str) -> genai.Client:
    return genai.Client(
        vertexai=True,
        project="p",
        location="us-central1",
        credentials=GoogleCredentials(key),
        http_options={"base_url": f"{url}/vertex"},
    )


def check_signed(request: Request, service: str = "bedrock") -> None:
    """What Amazon does: compute the signature again."""
    given = request.header("authorization") or ""
    names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name: request.header(name) or "" for name in names if name != "host"}
    url = f"http://{request.header('host')}{request.target}"
    again = AWSRequest(method=request.method, url=url, data=request.body, headers=headers)
    again.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(UPSTREAM, service, "us-east-1")
    expected = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    assert given.startswith(f"AWS4-HMAC-SHA256 Credential={UPSTREAM.access_key}/")
    assert given.endswith(f"Signature={expected}")


def check_nothing_of_the_client(request: Request) -> None:
    told = request.raw_head.decode()
    assert "AKCLIENT" not in told
    assert "the client's" not in told
    assert KEYS["rich"] not in told


def check_row(tollkeeper: Harness, route: str, model: str) -> None:
    (row,) = tollkeeper.rows()
    assert (row["route"], row["model"].rpartition("/")[2]) == (route, model)
    assert (row["input_tokens"], row["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert row["usage_source"] == "reported"
    assert float(row["cost_usd"]) > 0


# --- boto3 ---------------------------------------------------------------------------------


def test_converse_signed_anew(tollkeeper: Harness) -> None:
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    answer = client.converse(modelId=NOVA, messages=HELLO)
    assert answer["output"]["message"]["content"] == [{"text": TEXT}]
    assert answer["usage"] == CONVERSED["usage"]
    (request,) = tollkeeper.provider.requests
    assert request.path == "/model/us.amazon.nova-lite-v1%3A0/converse"
    check_signed(request)
    check_nothing_of_the_client(request)
    check_row(tollkeeper, "converse", NOVA)


def test_converse_stream(tollkeeper: Harness) -> None:
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    events = list(client.converse_stream(modelId=NOVA, messages=HELLO)["stream"])
    texts = [e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e]
    assert "".join(texts) == TEXT
    assert events[-1]["metadata"]["usage"]["outputTokens"] == OUTPUT_TOKENS
    check_signed(tollkeeper.provider.requests[0])
    check_row(tollkeeper, "converse-stream", NOVA)


def test_the_model_as_an_arn(tollkeeper: Harness) -> None:
    arn = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{NOVA}"
    boto(f"{tollkeeper.url}/bedrock", KEYS["rich"]).converse(modelId=arn, messages=HELLO)
    (request,) = tollkeeper.provider.requests
    assert "inference-profile%2Fus.amazon" in request.path
    check_signed(request)
    check_row(tollkeeper, "converse", NOVA)


def test_the_address_from_the_environment(
    tollkeeper: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", f"{tollkeeper.url}/bedrock")
    boto(None, KEYS["rich"]).converse(modelId=NOVA, messages=HELLO)
    check_row(tollkeeper, "converse", NOVA)


BODY = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": ASKED})


def test_invoke(tollkeeper: Harness) -> None:
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    answer = client.invoke_model(modelId=CLAUDE, body=BODY, serviceTier="flex")
    assert json.loads(answer["body"].read())["content"][0]["text"] == TEXT
    (request,) = tollkeeper.provider.requests
    assert request.header("x-amzn-bedrock-service-tier") == "flex"
    assert request.body == BODY.encode()
    check_signed(request)
    check_row(tollkeeper, "invoke", CLAUDE)


def test_invoke_with_response_stream(tollkeeper: Harness) -> None:
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    answer = client.invoke_model_with_response_stream(modelId=CLAUDE, body=BODY)
    chunks = [json.loads(part["chunk"]["bytes"]) for part in answer["body"]]
    assert chunks[-1]["type"] == "message_stop"
    check_row(tollkeeper, "invoke-with-response-stream", CLAUDE)


def test_counting_tokens_is_free_and_signed(tollkeeper: Harness) -> None:
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    answer = client.count_tokens(modelId=NOVA, input={"converse": {"messages": HELLO}})
    assert answer["inputTokens"] == INPUT_TOKENS
    check_signed(tollkeeper.provider.requests[0])
    assert tollkeeper.rows() == []


@pytest.fixture
def tls_url(tollkeeper: Harness, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """TLS in front of Tollkeeper, as boto3 wants it for API keys: (address, its authority)."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    host, _, port = tollkeeper.url.removeprefix("http://").partition(":")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            pipe(reader, inner_writer), pipe(inner_reader, writer), return_exceptions=True
        )

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    started = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(serve, "localhost", 0, ssl=context), loop
    )
    server = started.result()
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}", str(bundle)

    async def stop() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("name", ["bedrock", "bedrock-by-key"])
def test_the_key_as_a_bedrock_api_key(
    tollkeeper: Harness, tls_url: tuple[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    url, bundle = tls_url
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEYS["rich"])
    client = boto3.client(
        "bedrock-runtime", endpoint_url=f"{url}/{name}", region_name="us-east-1", verify=bundle
    )
    answer = client.converse(modelId=NOVA, messages=HELLO)
    client.close()
    assert answer["usage"]["inputTokens"] == INPUT_TOKENS
    (request,) = tollkeeper.provider.requests
    if name == "bedrock":
        check_signed(request)
    else:
        assert request.header("authorization") == "Bearer bedrock-upstream-key"
        assert request.header("x-amz-date") is None
    check_nothing_of_the_client(request)
    check_row(tollkeeper, "converse", NOVA)


def ask(client: Any, model: str = NOVA) -> None:
    client.converse(modelId=model, messages=HELLO)


def ask_streamed(client: Any, model: str = NOVA) -> None:
    client.converse_stream(modelId=model, messages=HELLO)


@pytest.mark.parametrize("call", [ask, ask_streamed])
@pytest.mark.parametrize(
    ("key", "model", "exception", "status"),
    [
        ("spent", NOVA, "ServiceQuotaExceededException", 400),
        ("spent-402", NOVA, "ServiceQuotaExceededException", 402),
        ("", NOVA, "AccessDeniedException", 401),
        ("rich", "no.such-model", "AccessDeniedException", 403),
    ],
)
def test_refusals_are_its_own_exceptions_and_sent_once(
    tollkeeper: Harness,
    call: Callable[..., None],
    key: str,
    model: str,
    exception: str,
    status: int,
) -> None:
    client = boto(f"{tollkeeper.url}/bedrock", KEYS.get(key, "tk-wrong"))
    with pytest.raises(getattr(client.exceptions, exception)) as caught:
        call(client, model)
    assert caught.value.response["Error"]["Code"] == exception
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert len(tollkeeper.received) == 1
    assert not tollkeeper.provider.requests
    assert tollkeeper.rows() == []


def test_an_error_of_the_provider_comes_back_as_it_is(tollkeeper: Harness, override: Any) -> None:
    error = json_reply(
        {"message": "no such model"},
        status=400,
        headers=[("x-amzn-errortype", "ValidationException:http://internal.amazon.com/")],
    )
    override("/converse", error)
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    with pytest.raises(client.exceptions.ValidationException, match="no such model"):
        ask(client)
    (row,) = tollkeeper.rows()
    assert (float(row["cost_usd"]), row["ending"]) == (0, "upstream_error")


def test_an_exception_in_the_stream(tollkeeper: Harness, override: Any) -> None:
    headers = {":exception-type": "modelStreamErrorException", ":message-type": "exception"}
    broken = [*converse_events()[:3], message(headers, b'{"message":"the model broke"}')]
    override("/converse-stream", stream(broken))
    client = boto(f"{tollkeeper.url}/bedrock", KEYS["rich"])
    answer = client.converse_stream(modelId=NOVA, messages=HELLO)["stream"]
    with contextlib.closing(answer), pytest.raises(EventStreamError, match="the model broke"):
        list(answer)
    assert len(tollkeeper.received) == 1
    (row,) = tollkeeper.rows()
    assert row["usage_source"] == "estimated"


# --- Anthropic's SDK for both clouds -------------------------------------------------------


def claude_on_bedrock(tollkeeper: Harness, key: str) -> anthropic.AnthropicBedrock:
    return anthropic.AnthropicBedrock(
        aws_access_key="AKCLIENT",
        aws_secret_key="the client's",
        aws_region="us-east-1",
        base_url=f"{tollkeeper.url}/bedrock",
        default_headers={"x-tollkeeper-key": key},
    )


def claude_on_vertex(tollkeeper: Harness, key: str) -> anthropic.AnthropicVertex:
    return anthropic.AnthropicVertex(
        region="us-east5",
        project_id="p",
        access_token=key,
        base_url=f"{tollkeeper.url}/vertex/v1",
    )


@pytest.mark.parametrize(
    ("make", "model", "route"),
    [
        (claude_on_bedrock, CLAUDE, "invoke"),
        (claude_on_vertex, VERTEX_CLAUDE, "rawPredict"),
    ],
)
def test_claude(tollkeeper: Harness, make: Any, model: str, route: str) -> None:
    with make(tollkeeper, KEYS["rich"]) as client:
        answer = client.messages.create(model=model, max_tokens=99, messages=ASKED)
    assert answer.content[0].text == TEXT
    (request,) = tollkeeper.provider.requests
    check_nothing_of_the_client(request)
    if make is claude_on_bedrock:
        check_signed(request)
    else:
        assert request.header("authorization") == "Bearer ya29.upstream"
    check_row(tollkeeper, route, model)


@pytest.mark.parametrize(
    ("make", "model", "route"),
    [
        (claude_on_bedrock, CLAUDE, "invoke-with-response-stream"),
        (claude_on_vertex, VERTEX_CLAUDE, "streamRawPredict"),
    ],
)
def test_claude_streamed(tollkeeper: Harness, make: Any, model: str, route: str) -> None:
    with (
        make(tollkeeper, KEYS["rich"]) as client,
        client.messages.stream(model=model, max_tokens=99, messages=ASKED) as events,
    ):
        assert "".join(events.text_stream) == TEXT
    check_row(tollkeeper, route, model)


@pytest.mark.parametrize(
    ("make", "model", "status"),
    [(claude_on_bedrock, CLAUDE, 400), (claude_on_vertex, VERTEX_CLAUDE, 429)],
)
def test_claude_refused(tollkeeper: Harness, make: Any, model: str, status: int) -> None:
    with (
        make(tollkeeper, KEYS["spent"]) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(model=model, max_tokens=99, messages=ASKED)
    assert caught.value.status_code == status
    assert "budget" in str(caught.value)
    assert len(tollkeeper.received) == 1
    assert not tollkeeper.provider.requests


def test_counting_claudes_tokens_is_free(tollkeeper: Harness) -> None:
    with claude_on_vertex(tollkeeper, KEYS["rich"]) as client:
        answer = client.messages.count_tokens(model=VERTEX_CLAUDE, messages=ASKED)
    assert answer.input_tokens == INPUT_TOKENS
    assert tollkeeper.rows() == []


# --- google-genai --------------------------------------------------------------------------


def test_gemini_on_vertex(tollkeeper: Harness) -> None:
    with genai_vertex(tollkeeper.url, KEYS["rich"]) as client:
        answer = client.models.generate_content(model=replies.GENERATE_MODEL, contents="hi")
    assert answer.text == TEXT
    (request,) = tollkeeper.provider.requests
    place = "projects/p/locations/us-central1/publishers/google/models"
    assert request.path.endswith(f"/{place}/{replies.GENERATE_MODEL}:generateContent")
    assert request.header("authorization") == "Bearer ya29.upstream"
    check_nothing_of_the_client(request)
    check_row(tollkeeper, "generateContent", replies.GENERATE_MODEL)


def test_vertexs_address_from_the_environment(
    tollkeeper: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", f"{tollkeeper.url}/vertex")
    credentials = GoogleCredentials(KEYS["rich"])
    with genai.Client(vertexai=True, project="p", location="global", credentials=credentials) as it:
        assert it.models.generate_content(model=replies.GENERATE_MODEL, contents="hi").text == TEXT
    check_row(tollkeeper, "generateContent", replies.GENERATE_MODEL)


def test_gemini_on_vertex_streamed(tollkeeper: Harness) -> None:
    with genai_vertex(tollkeeper.url, KEYS["rich"]) as client:
        events = client.models.generate_content_stream(model=replies.GENERATE_MODEL, contents="hi")
        assert "".join(part.text or "" for part in events) == TEXT
    check_row(tollkeeper, "streamGenerateContent", replies.GENERATE_MODEL)


def test_gemini_on_vertex_refused(tollkeeper: Harness) -> None:
    with (
        genai_vertex(tollkeeper.url, KEYS["spent"]) as client,
        pytest.raises(genai_errors.ClientError) as caught,
    ):
        client.models.generate_content(model=replies.GENERATE_MODEL, contents="hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert len(tollkeeper.received) == 1
    assert not tollkeeper.provider.requests


def test_gemini_in_express_mode(tollkeeper: Harness) -> None:
    with genai.Client(
        vertexai=True, api_key=KEYS["rich"], http_options={"base_url": f"{tollkeeper.url}/vertex"}
    ) as client:
        answer = client.models.generate_content(model=replies.GENERATE_MODEL, contents="hi")
    assert answer.text == TEXT
    check_row(tollkeeper, "generateContent", replies.GENERATE_MODEL)


def test_a_provider_without_credentials_says_so(
    provider: ReplayServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    aws = {"base_url": provider.url, "aws": {"region": "us-east-1"}}
    provider.reset()
    with Running(a_config(tmp_path, provider.url, providers={"bedrock": aws})) as running:
        client = boto(f"{running.url}/bedrock", "tk-test-key")
        client.meta.config.retries = {"max_attempts": 0}
        with pytest.raises(ClientError, match="NoCredentialsError") as caught:
            ask(client)
        assert running.rows() == []
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"
    assert not provider.requests
