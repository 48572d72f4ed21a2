"""Calls through the whole proxy: bytes, headers, edits, rows, and what is refused.

One Tollkeeper for the module. The provider is scripted, the clients speak plain HTTP.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.e2e.shapes import (
    CHAT,
    CHAT_DELTAS,
    CHAT_STOP,
    CHAT_STREAM,
    CHAT_USAGE,
    DOCUMENTS,
    DONE,
    GENERATE,
    MESSAGES,
    RESPONSES_STREAM,
    SHAPES,
    STREAMS,
    Shape,
)
from tests.e2e.stage import Stage, credential, error_of, eventually, id_of
from tests.harness import KEY
from tests.replay import Gate, Reply, json_reply

BODY_BYTES_MAX = 200_000


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "key_sha256": sha256(f"tk-{name}".encode()).hexdigest()} | more


ORGANIZATIONS = {
    "acme": {
        "teams": {
            "search": {
                "keys": [
                    key("search-prod", key_sha256=sha256(KEY.encode()).hexdigest()),
                    key("mini-only", models=["gpt-4o-m*"], providers=["openai"]),
                    key("janes", user="jane"),
                    key("expired", expires="2020-01-01"),
                ],
                "projects": {"ranking": {"keys": [key("ranking-ci")]}},
            }
        }
    }
}


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(
        tmp_path_factory.mktemp("calls"),
        organizations=ORGANIZATIONS,
        budgets=[{"scope": "organization/acme", "limit_usd": 1000}],
        server={"max_body_mb": BODY_BYTES_MAX / 2**20},
    ) as stage:
        stage.reload(providers=more_providers(stage.provider.url))
        yield stage


@pytest.fixture
def stage(hall: Stage) -> Stage:
    hall.begin()
    return hall


def more_providers(url: str) -> dict[str, dict[str, Any]]:
    compatible = {"dialect": "openai", "base_url": url}
    return {
        "local": compatible | {"prices": "free"},
        "mine": compatible | {"api_key": "client", "prices": "openai"},
        "open": compatible | {"api_key": "sk-open", "prices": "openai", "allow_unmetered": True},
        "prefixed": compatible | {"base_url": f"{url}/some/prefix", "prices": "openai"},
    }


def rows_of(stage: Stage, answer: httpx.Response) -> list[dict[str, Any]]:
    return [row for row in stage.rows() if row["request_id"] == id_of(answer)]


def assert_refused(
    stage: Stage, answer: httpx.Response, status: int, code: str, *, final: bool = True
) -> None:
    """One refusal in the dialect's shape, which reached nobody and left no row."""
    assert (answer.status_code, error_of(answer)["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == answer.headers["request-id"] == id_of(answer)
    assert answer.headers.get("x-should-retry") == ("false" if final else None)
    assert ("retry-after" in answer.headers) is not final
    assert stage.seen() == 0
    assert rows_of(stage, answer) == []


# --- replies and rows ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_call_is_relayed_byte_for_byte_and_has_one_exact_row(stage: Stage, shape: Shape) -> None:
    answer = stage.paid(shape)

    assert answer.content == shape.reply_body
    assert answer.headers["content-type"] == shape.content_type
    assert answer.headers["x-request-id"] == "req-of-provider"
    assert "x-tollkeeper-clamped-max-tokens" not in answer.headers
    # As last known: an eighth of the limit may be on its way back to control.
    assert 874 < float(answer.headers["x-tollkeeper-remaining-usd"]) <= 1000
    assert answer.headers.get("x-tollkeeper-cost-usd") == (None if shape.stream else shape.cost)
    row = stage.row(answer)
    assert 0 <= row.pop("duration_ms") < 10_000
    assert row.pop("at").endswith("Z")
    assert sum(float(item["usd"]) for item in row.pop("cost_items")) == pytest.approx(
        float(shape.cost)
    )
    assert row == {
        "request_id": id_of(answer),
        "provider": shape.dialect,
        "model": shape.model,
        "organization": "acme",
        "team": "search",
        "project": None,
        "user": None,
        "key": "search-prod",
        "tags": {},
        "http_status": 200,
        "ending": "complete",
        "usage_source": "reported",
        **shape.usage,
        "cost_usd": shape.cost,
        "hold_usd": answer.headers["x-tollkeeper-hold-usd"],
        "price_version": row["price_version"],
        "route": shape.route,
        "stream": shape.stream,
        "client_retry": 0,
    }
    assert row["price_version"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_request_goes_on_as_it_came(stage: Stage, shape: Shape) -> None:
    stage.provider.reply(shape.reply())
    stage.call(shape, headers={"X-Custom": "kept", "x-forwarded-for": "1.2.3.4", "baggage": "a=b"})

    sent = stage.provider.requests[0]
    assert sent.body == shape.request()
    assert sent.target == shape.path
    assert sent.header("x-custom") == "kept"
    assert sent.header("accept-encoding") == "identity"
    assert sent.header("content-length") == str(len(sent.body))
    assert sent.header("host") == stage.provider.url.removeprefix("http://")
    assert not {name for name, _ in sent.headers if name.startswith("x-tollkeeper")}
    assert sent.header("x-forwarded-for") is sent.header("baggage") is None


def test_the_hold_is_bytes_and_limit_at_the_dearest_rates(stage: Stage) -> None:
    answer = stage.paid(CHAT)

    nano = (len(CHAT.request()) + 2048) * 250 + 200 * 1000  # the priority tier's rates
    assert answer.headers["x-tollkeeper-hold-usd"] == f"{nano / 10**9:.9f}".rstrip("0")


def test_cost_items_are_exact(stage: Stage) -> None:
    assert stage.row(stage.paid(MESSAGES))["cost_items"] == [
        {"item": "input", "count": 60, "usd": "0.00018"},
        {"item": "cache_read", "count": 40, "usd": "0.000012"},
        {"item": "cache_write", "count": 20, "usd": "0.000075"},
        {"item": "output", "count": 20, "usd": "0.0003"},
    ]


@pytest.mark.parametrize("prefix", ["/openai", "/prefixed"])
def test_a_prefix_names_the_provider(stage: Stage, prefix: str) -> None:
    stage.provider.reply(CHAT.reply())
    answer = stage.http.post(
        prefix + CHAT.path, content=CHAT.request(), headers=stage.headers(CHAT)
    )

    assert stage.row(answer)["provider"] == prefix[1:]
    base = "/some/prefix" if prefix == "/prefixed" else ""
    assert stage.provider.requests[0].target == base + CHAT.path


def test_large_documents_pass_unbuffered(stage: Stage) -> None:
    data = json.loads(CHAT.reply_body)
    data["choices"][0]["message"]["content"] = "x" * 400_000
    body = json.dumps(data).encode()
    gate = Gate()
    stage.provider.reply(CHAT.reply((body,), stall_after=300_000, until=gate))

    headers = stage.headers(CHAT)
    with stage.http.stream("POST", CHAT.path, content=CHAT.request(), headers=headers) as answer:
        parts = answer.iter_raw()
        first = next(parts)
        gate.open()
        assert first + b"".join(parts) == body
    assert answer.headers["content-length"] == str(len(body))
    assert "x-tollkeeper-cost-usd" not in answer.headers
    assert stage.row(answer)["cost_usd"] == CHAT.cost


@pytest.mark.parametrize("shape", STREAMS, ids=str)
def test_chunks_pass_as_they_come(stage: Stage, shape: Shape) -> None:
    gate = Gate()
    stage.provider.reply(shape.reply(stall_after=len(shape.parts[0]), until=gate))

    headers = stage.headers(shape)
    with stage.http.stream("POST", shape.path, content=shape.request(), headers=headers) as answer:
        parts = answer.iter_raw()
        assert next(parts) == shape.parts[0]
        gate.open()
        assert b"".join(parts) == b"".join(shape.parts[1:])
    assert stage.row(answer)["cost_usd"] == shape.cost


@pytest.mark.parametrize("shape", [*DOCUMENTS, *STREAMS], ids=str)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_replies_pass_as_they_are_and_are_metered(
    stage: Stage, shape: Shape, encoding: str
) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    body = compress(shape.reply_body)
    pieces = (body[:20], body[20:41], body[41:])
    stage.provider.reply(shape.reply(pieces, headers=[("content-encoding", encoding)]))

    headers = stage.headers(shape)
    with stage.http.stream("POST", shape.path, content=shape.request(), headers=headers) as answer:
        assert b"".join(answer.iter_raw()) == body
    row = stage.row(answer)
    assert (row["usage_source"], row["cost_usd"]) == ("reported", shape.cost)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("framing", ["length", "chunked", "eof"])
def test_the_providers_framing_does_not_matter(stage: Stage, shape: Shape, framing: Any) -> None:
    stage.provider.reply(
        Reply(200, [("content-type", shape.content_type)], shape.reply_body, framing)
    )

    answer = stage.call(shape)

    assert answer.content == shape.reply_body
    assert stage.row(answer)["cost_usd"] == shape.cost


# --- edits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [CHAT, MESSAGES, GENERATE], ids=str)
@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_whatever_header_the_key_comes_in_exactly_one_credential_goes_on(
    stage: Stage, shape: Shape, dialect: str
) -> None:
    stage.provider.reply(shape.reply())
    answer = stage.http.post(
        f"/{shape.dialect}{shape.path}", content=shape.request(), headers=credential(dialect)
    )

    assert answer.status_code == 200
    sent = stage.provider.requests[0]
    name = {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}
    value = {"openai": "Bearer sk-upstream-openai"}
    here = {h: sent.header(h) for h in (*name.values(), "api-key") if sent.header(h)}
    assert here == {name[shape.dialect]: value.get(shape.dialect, f"sk-upstream-{shape.dialect}")}
    assert KEY.encode() not in sent.raw_head


def test_a_key_in_the_query_is_taken_off_and_the_rest_keeps_its_order(stage: Stage) -> None:
    path = GENERATE.path + f"?b=%2F2&key={KEY}&a=1&$alt=json%3B"
    stage.provider.reply(GENERATE.reply())

    answer = stage.http.post(path, content=GENERATE.request())

    assert answer.status_code == 200
    assert stage.provider.requests[0].target == GENERATE.path + "?b=%2F2&a=1&$alt=json%3B"
    assert KEY.encode() not in stage.provider.requests[0].raw_head


def test_the_raw_path_goes_on(stage: Stage) -> None:
    stage.provider.reply(json_reply({"ok": True}))

    target = "/v1/models/a%2Fb%3Ac%20d?x=%41&y"
    assert stage.http.get(target, headers=stage.headers(CHAT)).json() == {"ok": True}

    assert stage.provider.requests[0].target == target


WITHOUT_USAGE = {key: value for key, value in CHAT_STREAM.body.items() if key != "stream_options"}


def test_usage_is_asked_for_and_its_chunk_withheld(stage: Stage) -> None:
    body = json.dumps(WITHOUT_USAGE).encode()
    stage.provider.reply(CHAT_STREAM.reply())

    answer = stage.http.post(CHAT_STREAM.path, content=body, headers=stage.headers(CHAT_STREAM))

    assert answer.content == b"".join((*CHAT_DELTAS, CHAT_STOP, DONE))
    sent = stage.provider.requests[0].body
    assert json.loads(sent) == CHAT_STREAM.body
    assert sent.endswith(body[1:])  # the client's own bytes, spliced behind the new key
    assert stage.row(answer)["cost_usd"] == CHAT_STREAM.cost


def test_asking_for_usage_can_be_switched_off(stage: Stage) -> None:
    body = json.dumps(WITHOUT_USAGE).encode()
    parts = (*CHAT_DELTAS, CHAT_STOP, DONE)
    stage.provider.reply(CHAT_STREAM.reply(parts))

    off = {"x-tollkeeper-include-usage": "off"}
    answer = stage.http.post(
        CHAT_STREAM.path, content=body, headers=stage.headers(CHAT_STREAM) | off
    )

    assert answer.content == b"".join(parts)
    assert stage.provider.requests[0].body == body
    row = stage.row(answer)
    assert (row["ending"], row["usage_source"]) == ("complete", "estimated")
    assert 0 < float(row["cost_usd"]) <= float(row["hold_usd"])


def test_a_usage_chunk_asked_for_is_passed(stage: Stage) -> None:
    assert CHAT_USAGE in stage.paid(CHAT_STREAM).content


def test_a_chunked_request_gets_a_length(stage: Stage) -> None:
    body = CHAT.request()
    stage.provider.reply(CHAT.reply())

    answer = stage.http.post(
        CHAT.path, content=iter([body[:10], body[10:]]), headers=stage.headers(CHAT)
    )

    assert answer.status_code == 200
    sent = stage.provider.requests[0]
    assert (sent.body, sent.header("transfer-encoding")) == (body, None)
    assert sent.header("content-length") == str(len(body))


# --- our own headers -----------------------------------------------------------------------


def test_user_project_tags_and_retries_stand_in_the_row(stage: Stage) -> None:
    stage.provider.reply(CHAT.reply())
    answer = stage.call(
        CHAT,
        headers={
            "x-tollkeeper-user": "joe@example.com",
            "x-tollkeeper-project": "ranking",
            "x-tollkeeper-tags": "env=prod, run=7",
            "x-stainless-retry-count": "2",
        },
    )

    row = stage.row(answer)
    assert (row["user"], row["project"]) == ("joe@example.com", "ranking")
    assert row["tags"] == {"env": "prod", "run": "7"}
    assert row["client_retry"] == 2
    sent = stage.provider.requests[0]
    assert sent.header("x-stainless-retry-count") == "2"
    assert b"x-tollkeeper" not in sent.raw_head


@pytest.mark.parametrize(
    ("name", "user", "project"), [("janes", "jane", None), ("ranking-ci", None, "ranking")]
)
def test_a_key_may_be_bound_to_user_or_project(
    stage: Stage, name: str, user: str | None, project: str | None
) -> None:
    row = stage.row(stage.paid(CHAT, key=f"tk-{name}"))

    assert (row["key"], row["user"], row["project"]) == (name, user, project)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-tollkeeper-project", "nowhere"),
        ("x-tollkeeper-user", "a b"),
        ("x-tollkeeper-tags", "no-equals"),
        ("x-tollkeeper-max-cost-usd", "much"),
        ("x-tollkeeper-include-usage", "maybe"),
    ],
)
@pytest.mark.parametrize("shape", [CHAT, MESSAGES, GENERATE], ids=str)
def test_bad_headers_of_ours_are_named(stage: Stage, shape: Shape, header: str, value: str) -> None:
    answer = stage.call(shape, headers={header: value})

    assert_refused(stage, answer, 400, "invalid_tollkeeper_header")
    assert header in answer.text


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_cap_for_one_call(stage: Stage, shape: Shape) -> None:
    hold = stage.paid(shape).headers["x-tollkeeper-hold-usd"]
    stage.provider.reset()

    exactly = {"x-tollkeeper-max-cost-usd": hold}
    stage.provider.reply(shape.reply())
    assert stage.call(shape, headers=exactly).status_code == 200
    stage.provider.reset()
    less = {"x-tollkeeper-max-cost-usd": f"{float(hold) - 2e-9:.9f}"}
    assert_refused(stage, stage.call(shape, headers=less), 429, "cost_cap_exceeded")


def test_a_cap_clamps_a_call_without_a_limit(stage: Stage) -> None:
    stage.provider.reply(CHAT.reply())
    body = {name: value for name, value in CHAT.body.items() if name != "max_completion_tokens"}
    headers = stage.headers(CHAT) | {"x-tollkeeper-max-cost-usd": "0.002"}

    answer = stage.http.post(CHAT.path, content=json.dumps(body).encode(), headers=headers)

    assert answer.status_code == 200, answer.text
    limit = int(answer.headers["x-tollkeeper-clamped-max-tokens"])
    assert json.loads(stage.provider.requests[0].body)["max_completion_tokens"] == limit
    hold = float(answer.headers["x-tollkeeper-hold-usd"])
    assert 0.002 - 0.000001 <= hold <= 0.002


# --- who may what --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("wrong", ["tk-unknown", "", "tk-expired"])
def test_wrong_keys(stage: Stage, shape: Shape, wrong: str) -> None:
    code = "key_expired" if wrong == "tk-expired" else "invalid_api_key"

    assert_refused(stage, stage.call(shape, key=wrong), 401, code)


def test_several_keys_are_ambiguous(stage: Stage) -> None:
    both = {"authorization": f"Bearer {KEY}", "x-api-key": "tk-janes"}

    answer = stage.http.post(CHAT.path, content=CHAT.request(), headers=both)

    assert_refused(stage, answer, 400, "ambiguous_credentials")


def test_a_key_for_some_models(stage: Stage) -> None:
    assert stage.paid(CHAT, key="tk-mini-only").status_code == 200
    stage.provider.reset()

    answer = stage.call(CHAT, key="tk-mini-only", model="gpt-4o")

    assert_refused(stage, answer, 403, "model_not_allowed")


@pytest.mark.parametrize("path", [MESSAGES.path, "/anthropic/v1/models"])
def test_a_key_for_some_providers(stage: Stage, path: str) -> None:
    answer = stage.http.post(
        path, content=MESSAGES.request(), headers=stage.headers(MESSAGES, "tk-mini-only")
    )

    assert_refused(stage, answer, 403, "provider_not_allowed")


@pytest.mark.parametrize("shape", [CHAT, MESSAGES, GENERATE], ids=str)
def test_a_model_without_a_price(stage: Stage, shape: Shape) -> None:
    path = shape.path.replace("gemini-2.5-flash", "no-such-model")
    answer = stage.http.post(
        path, content=shape.request(model="no-such-model"), headers=stage.headers(shape)
    )

    assert_refused(stage, answer, 403, "model_not_priced")
    assert "no-such-model" in answer.text


# --- kinds of routes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("DELETE", "/v1/files/file-1"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1beta/models/gemini-2.5-flash:countTokens"),
    ],
)
def test_free_routes_pass_without_a_row(stage: Stage, method: str, path: str) -> None:
    stage.provider.reply(json_reply({"n": 1}, headers=[("x-more", "1")]))

    content = b'{"any": "thing"}' if method == "POST" else None
    answer = stage.http.request(method, path, content=content, headers=stage.headers(CHAT))

    assert (answer.status_code, answer.json(), answer.headers["x-more"]) == (200, {"n": 1}, "1")
    assert stage.provider.requests[0].body == (content or b"")
    assert rows_of(stage, answer) == []


def test_head_has_no_body(stage: Stage) -> None:
    stage.provider.reply(json_reply({"n": 1}), json_reply({"n": 2}))

    answer = stage.http.head("/v1/models", headers=stage.headers(CHAT))

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "8"
    assert stage.http.get("/v1/models", headers=stage.headers(CHAT)).json() == {"n": 2}


@pytest.mark.parametrize("status", [204, 304, 404, 500])
def test_statuses_of_free_routes_pass(stage: Stage, status: int) -> None:
    stage.provider.reply(Reply(status, [("x-more", "1")]))

    answer = stage.http.get("/v1/models/x", headers=stage.headers(CHAT))

    assert (answer.status_code, answer.content, answer.headers["x-more"]) == (status, b"", "1")


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/anything", "/v1/uploads"])
def test_unmetered_routes_are_refused(stage: Stage, path: str) -> None:
    answer = stage.http.post(path, content=b"{}", headers=stage.headers(CHAT))

    assert_refused(stage, answer, 403, "route_not_metered")


def test_unmetered_routes_stream_both_ways_where_allowed(stage: Stage) -> None:
    reply = [b"part %d " % number for number in range(5)]
    stage.provider.reply(Reply(201, [("content-type", "text/plain")], reply, "chunked"))
    upload = [b"a" * 70_000, b"b", b"c" * 1000]

    answer = stage.http.post(
        "/open/v1/files", content=iter(upload), headers=stage.headers(CHAT) | {"x-own": "1"}
    )

    assert (answer.status_code, answer.content) == (201, b"".join(reply))
    sent = stage.provider.requests[0]
    assert (sent.body, sent.header("transfer-encoding")) == (b"".join(upload), "chunked")
    assert sent.header("content-length") is None
    assert sent.header("authorization") == "Bearer sk-open"
    assert rows_of(stage, answer) == []


def test_unmetered_uploads_keep_their_length(stage: Stage) -> None:
    stage.provider.reply(json_reply({}))

    stage.http.post("/open/v1/files", content=b"x" * 90_000, headers=stage.headers(CHAT))

    sent = stage.provider.requests[0]
    assert sent.body == b"x" * 90_000
    assert sent.header("content-length") == "90000"
    assert sent.header("transfer-encoding") is None


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing/here", "unknown_route"),
        ("POST", "/", "unknown_route"),
        ("POST", "/openai", "unknown_route"),
        ("PROPFIND", "/v1/models", "unknown_route"),
        ("POST", "/openai/deployments/d/chat/completions", "unknown_provider"),
    ],
)
def test_unknown_routes(stage: Stage, method: str, path: str, code: str) -> None:
    answer = stage.http.request(method, path, headers=stage.headers(CHAT))

    assert_refused(stage, answer, 404, code)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/responses", "/openai/v1/responses", "/v1/realtime/translations?model=x"),
        *("/v1/chat/completions", "/anthropic/v1/realtime", "/gemini/v1/realtime"),
    ],
)
def test_websockets_are_declined(stage: Stage, path: str) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    answer = stage.http.get(path, headers=stage.headers(CHAT) | upgrade)

    assert_refused(stage, answer, 426, "websocket_not_supported")
    assert stage.http.get("/healthz").status_code == 200  # the connection goes on


# --- bad bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"a": "\xff"}', b"[" * 100_000])
def test_bad_bodies(stage: Stage, shape: Shape, body: bytes) -> None:
    answer = stage.http.post(shape.path, content=body, headers=stage.headers(shape))

    assert_refused(stage, answer, 400, "bad_request")


@pytest.mark.parametrize("model", [None, "", 7, "m" * 1000])
@pytest.mark.parametrize("shape", [CHAT, MESSAGES, RESPONSES_STREAM], ids=str)
def test_bad_models(stage: Stage, shape: Shape, model: Any) -> None:
    answer = stage.call(shape, model=model)

    assert_refused(stage, answer, 400, "bad_request")
    assert "`model`" in answer.text


@pytest.mark.parametrize("path", [CHAT.path, "/open/v1/files", "/v1/moderations"])
def test_an_oversized_body_is_refused_before_it_is_read(stage: Stage, path: str) -> None:
    shape = Shape(**vars(CHAT) | {"path": path})
    with stage.raw_call(shape, length=BODY_BYTES_MAX + 1) as call:
        head = call.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"x-should-retry: false" in head
    assert stage.seen() == 0


def test_an_oversized_chunked_body_is_refused(stage: Stage) -> None:
    answer = stage.http.post(
        CHAT.path, content=iter([b"x" * 60_000] * 4), headers=stage.headers(CHAT)
    )

    assert_refused(stage, answer, 413, "request_too_large")


# --- other providers, other limits ---------------------------------------------------------


def test_a_provider_that_is_free(stage: Stage) -> None:
    stage.provider.reply(CHAT.reply())
    answer = stage.http.post(
        "/local/v1/chat/completions",
        content=CHAT.request(model="llama3:8b"),
        headers=stage.headers(CHAT),
    )

    row = stage.row(answer)
    assert (row["provider"], row["model"], row["cost_usd"]) == ("local", "llama3:8b", "0")
    assert (row["usage_source"], row["input_tokens"]) == ("reported", 100)
    assert stage.provider.requests[0].header("authorization") is None


def test_a_callers_own_credential(stage: Stage) -> None:
    stage.provider.reply(CHAT.reply())
    answer = stage.http.post(
        "/mine/v1/chat/completions",
        content=CHAT.request(),
        headers={"x-tollkeeper-key": KEY, "authorization": "Bearer sk-of-the-caller"},
    )

    assert stage.row(answer)["cost_usd"] == CHAT.cost
    sent = stage.provider.requests[0]
    assert sent.header("authorization") == "Bearer sk-of-the-caller"
    assert KEY.encode() not in sent.raw_head


def test_a_callers_own_credential_needs_our_key_beside_it(stage: Stage) -> None:
    answer = stage.http.post(
        "/mine/v1/chat/completions", content=CHAT.request(), headers=stage.headers(CHAT)
    )

    assert_refused(stage, answer, 401, "invalid_api_key")


def test_concurrency_is_limited(stage: Stage) -> None:
    stage.reload(server={"max_concurrency": 1, "max_body_mb": BODY_BYTES_MAX / 2**20})
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate))
    try:
        with stage.raw_call(CHAT) as first:
            stage.provider.wait(lambda provider: len(provider.requests) == 1)
            answer = stage.call(CHAT)
            assert (answer.status_code, error_of(answer)["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert stage.http.get("/healthz").status_code == 200
            gate.open()
            assert first.read_until(b"}]").startswith(b"HTTP/1.1 200")
        eventually(lambda: stage.app.app.gateway and not stage.app.app.gateway.in_flight)
        assert stage.paid(CHAT).status_code == 200
    finally:
        stage.reload(server={"max_body_mb": BODY_BYTES_MAX / 2**20})


def test_health(stage: Stage) -> None:
    assert stage.http.get("/healthz").json() == {"status": "ok"}
    assert stage.http.get("/readyz").json() == {"status": "ready"}


def test_the_books_are_right(hall: Stage) -> None:
    assert hall.app.findings() == []
