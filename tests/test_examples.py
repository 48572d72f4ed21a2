"""The examples do what they say: audit log, redaction, Tollkeeper inside other applications."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from examples import mounted, redact
from proxy.app import Tollkeeper, create_app
from tests.e2e.shapes import CHAT, CHAT_STREAM, GENERATE, Shape
from tests.e2e.stage import Stage, credential, eventually
from tests.harness import KEY, a_config
from tests.replay import ReplayServer
from tests.source_code import ROOT, read

EXAMPLES = str(ROOT / "examples")


def audited(path: Path, count: int) -> list[dict[str, Any]]:
    """The lines of a log, as soon as there are so many."""

    def lines() -> list[str]:
        return path.read_text().splitlines()

    eventually(lambda: len(lines()) >= count)
    return [json.loads(line) for line in lines()]


# --- audit log -----------------------------------------------------------------------------


def test_the_audit_log_has_a_line_per_request(tmp_path: Path) -> None:
    log = tmp_path / "audit.ndjson"
    used = [{"path": "audit_log:AuditLog", "options": {"file": str(log)}}]
    with Stage(tmp_path, middleware=used, middleware_dir=EXAMPLES) as stage:
        plain, stream = stage.paid(CHAT), stage.paid(CHAT_STREAM)
        refused = stage.call(CHAT, key="wrong-key")
        stage.provider.reply(CHAT_STREAM.reply(close_after=len(CHAT_STREAM.parts[0])))
        with stage.raw_call(CHAT_STREAM) as call:
            call.read_all()

        first, second, third, fourth = audited(log, 4)

    assert first["request_id"] == plain.headers["x-tollkeeper-request-id"]
    assert first["cost_usd"] == CHAT.cost
    assert first["key"] == sha256(KEY.encode()).hexdigest()[:12]
    assert (first["method"], first["path"], first["status"]) == ("POST", CHAT.path, 200)
    assert (second["bytes"], second["complete"]) == (len(stream.content), True)
    assert "cost_usd" not in second
    assert (third["status"], refused.status_code) == (401, 401)
    assert (fourth["status"], fourth["complete"]) == (200, False)
    assert KEY not in log.read_text()
    assert "wrong-key" not in log.read_text()


# --- redaction -----------------------------------------------------------------------------

SECRETS = "Ada <ada.l+x@mail.example.org> pays with 4111 1111-1111 1111, call 12345."
CLEAN = "Ada <[email]> pays with [card], call 12345."


@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM, GENERATE], ids=str)
def test_secrets_do_not_leave(tmp_path: Path, shape: Shape) -> None:
    used = [{"path": "redact:Redact"}]
    with Stage(tmp_path, middleware=used, middleware_dir=EXAMPLES) as stage:
        answer = stage.paid(shape, note={"deep": [SECRETS]})
        sent = json.loads(stage.provider.requests[-1].body)
        assert sent["note"] == {"deep": [CLEAN]}
        assert sent | {"note": ""} == json.loads(shape.request(note="")) | (
            {"stream_options": sent["stream_options"]} if "stream_options" in sent else {}
        )
        assert answer.content == shape.reply_body
        assert stage.row(answer)["cost_usd"] == shape.cost


def test_a_body_that_is_no_json_is_refused_as_ever(tmp_path: Path) -> None:
    used = [{"path": "redact:Redact", "options": {"max_body_mb": "0.001"}}]
    with Stage(tmp_path, middleware=used, middleware_dir=EXAMPLES) as stage:
        headers = stage.headers(CHAT)
        bad = stage.http.post(CHAT.path, content=b"{", headers=headers)
        assert bad.status_code == 400
        large = stage.http.post(CHAT.path, content=b'"' + b"x" * 2000 + b'"', headers=headers)
        assert large.status_code == 413
        assert stage.seen() == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_redaction_keeps_the_shape(value: Any) -> None:
    found = redact.clean(value)
    assert redact.clean(found) == found
    assert type(found) is type(value)
    if isinstance(value, dict):
        assert found.keys() == value.keys()


# --- mounted -------------------------------------------------------------------------------


def in_starlette(tollkeeper: Tollkeeper) -> Starlette:
    return mounted.application(tollkeeper)


def in_fastapi(tollkeeper: Tollkeeper) -> FastAPI:
    app = FastAPI(lifespan=tollkeeper.lifespan)

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    app.mount("/llm", tollkeeper)
    return app


@pytest.fixture
def provider() -> Iterator[ReplayServer]:
    with ReplayServer() as server:
        yield server


@pytest.mark.parametrize("make", [in_starlette, in_fastapi])
@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM, GENERATE], ids=str)
def test_inside_another_application(
    tmp_path: Path, provider: ReplayServer, make: Callable[[Tollkeeper], Any], shape: Shape
) -> None:
    tollkeeper = create_app(a_config(tmp_path, provider.url))
    provider.reply(shape.reply())
    headers = credential(shape.dialect) | {"content-type": "application/json"}
    with TestClient(make(tollkeeper)) as client:
        assert client.get("/hello").json() == {"hello": "world"}
        assert client.get("/llm/readyz").status_code == 200
        for prefix in ("", f"/{shape.dialect}"):
            provider.reply(shape.reply())
            answer = client.post(
                f"/llm{prefix}{shape.path}", content=shape.request(), headers=headers
            )
            assert answer.status_code == 200
            assert answer.content == shape.reply_body
        assert client.post("/llm/nowhere", headers=headers).status_code == 404
    assert {request.target for request in provider.requests} == {shape.path}


def test_a_file_is_enough(tmp_path: Path, provider: ReplayServer) -> None:
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump(
            {
                "providers": {"openai": {"base_url": provider.url, "api_key": "k"}},
                "organizations": {"o": {"teams": {"t": {"keys": [{"name": "k", "key": KEY}]}}}},
            }
        )
    )
    provider.reply(CHAT.reply())
    with TestClient(create_app(tmp_path / "c.yaml")) as client:  # its own lifespan
        headers = credential("openai")
        assert client.post(CHAT.path, content=CHAT.request(), headers=headers).status_code == 200


def test_the_document_shows_what_the_examples_say() -> None:
    text = read("docs/extending.md")
    for name in ("audit_log:AuditLog", "redact:Redact"):
        assert name in text
        module = name.partition(":")[0]
        assert name in read(f"examples/{module}.py")
    assert "lifespan=tollkeeper.lifespan" in text
