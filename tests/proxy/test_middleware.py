"""ASGI middleware by import path: order, providers, what is wrong with one, and no cost without."""

import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.app import create_app
from proxy.config import ConfigError
from proxy.middleware import CutReplies, check, stack
from proxy.wire import MiddlewareEntry, MiddlewareSet
from tests.e2e.shapes import CHAT, CHAT_STREAM, MESSAGES, Shape
from tests.e2e.stage import Stage, credential, error_of
from tests.forks import run
from tests.harness import a_config
from tests.replay import ReplayServer, json_reply
from tests.source_code import ROOT

HERE = "tests.proxy.test_middleware"


class Marks:
    """Notes in a header that it was passed, the innermost first."""

    def __init__(self, app: Any, name: str = "?") -> None:
        self._app, self._name = app, name.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-mark", self._name)]
            await send(message)

        await self._app(scope, receive, marked)


def teapot(app: Any) -> Callable[..., Awaitable[None]]:
    """Answers itself."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 418, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return answer


class Fails:
    def __init__(self, app: Any) -> None:
        raise OSError("no such file\nand more")


def entry(name: str, **options: str) -> MiddlewareEntry:
    return MiddlewareEntry(f"{HERE}:{name}", options)


def marks(name: str) -> dict[str, Any]:
    return {"path": f"{HERE}:Marks", "options": {"name": name}}


# --- requests through it -------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ReplayServer() as provider:
        providers = {
            name: {"base_url": provider.url, "dialect": name, "api_key": "k", "prices": name}
            for name in ("openai", "anthropic")
        }
        inner = {"middleware": [marks("inner-1"), marks("inner-2")]}
        outer = [marks("outer-1"), marks("outer-2")]
        providers["openai"] |= inner  # type: ignore[arg-type]
        with Stage(tmp_path, provider=provider, providers=providers, middleware=outer) as made:
            yield made


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (CHAT, ["inner-2", "inner-1", "outer-2", "outer-1"]),
        (CHAT_STREAM, ["inner-2", "inner-1", "outer-2", "outer-1"]),
        (MESSAGES, ["outer-2", "outer-1"]),  # another provider
    ],
    ids=str,
)
def test_the_first_is_outermost(stage: Stage, shape: Shape, expected: list[str]) -> None:
    answer = stage.paid(shape)
    assert answer.headers.get_list("x-mark", split_commas=True) == expected
    assert answer.content == shape.reply_body
    assert stage.row(answer)["cost_usd"] == shape.cost


def test_our_own_answers_pass_it_too(stage: Stage) -> None:
    refused = stage.call(CHAT, key="wrong")
    assert refused.status_code == 401
    assert refused.headers["x-mark"].endswith("outer-1")
    assert stage.http.get("/healthz").headers["x-mark"] == "outer-2, outer-1"
    nowhere = stage.http.post("/nowhere", headers=credential("openai"))
    assert error_of(nowhere)["code"] == "unknown_route"
    assert nowhere.headers["x-mark"] == "outer-2, outer-1"


def test_a_stream_passes_piece_by_piece_and_a_broken_one_is_cut(stage: Stage) -> None:
    mark, row_of = stage.tagged()
    stage.provider.reply(CHAT_STREAM.reply(close_after=len(CHAT_STREAM.parts[0])))
    with stage.raw_call(CHAT_STREAM, headers=mark) as call:
        received = call.read_all()
    assert CHAT_STREAM.parts[0] in received
    assert not received.endswith(b"0\r\n\r\n")
    assert row_of()["ending"] == "upstream_broken"


def test_a_client_that_hangs_up_is_noticed_behind_it(stage: Stage) -> None:
    mark, row_of = stage.tagged()
    stage.provider.reply(CHAT_STREAM.reply(stall_after=len(CHAT_STREAM.parts[0])))
    with stage.raw_call(CHAT_STREAM, headers=mark) as call:
        call.read_until(CHAT_STREAM.parts[0])
    assert row_of()["ending"] == "client_gone"


async def test_middleware_may_answer_itself() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> None:
        pytest.fail("the application was called")

    app = stack(MiddlewareSet("", (entry("teapot"),)), never, lambda: None)
    await app({"type": "http"}, never, send)
    assert sent[0]["status"] == 418


# --- without it ----------------------------------------------------------------------------


def test_without_middleware_requests_do_not_come_through_asgi(tmp_path: Path) -> None:
    bare = create_app(a_config(tmp_path, "http://127.0.0.1:9"))
    assert bare.direct is not None
    around = create_app(a_config(tmp_path, "http://127.0.0.1:9", middleware=[marks("a")]))
    assert around.direct is None


def test_without_middleware_a_worker_does_not_import_it() -> None:
    code = "import proxy.worker, sys; print('proxy.middleware' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- what is wrong with one ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("nothing", {}, "expected MODULE:NAME, got 'nothing'"),
        (":Marks", {}, "expected MODULE:NAME, got ':Marks'"),
        ("no_such_module:X", {}, "cannot import no_such_module: ModuleNotFoundError: No module"),
        (f"{HERE}:Nobody", {}, "has no Nobody that can be called"),
        (f"{HERE}:HERE", {}, "has no HERE that can be called"),
        (f"{HERE}:Marks", {"nmae": "x"}, "cannot be called with .app, nmae=.: got an unexpected"),
        (f"{HERE}:Fails", {"file": "x"}, "cannot be called with"),
        ("raises:X", {}, "cannot import raises: ValueError: at import"),
        ("empty:X", {}, "empty has no X that can be called"),
    ],
)
def test_one_line_says_what_is_wrong(
    tmp_path: Path, path: str, options: dict[str, str], message: str
) -> None:
    (tmp_path / "raises.py").write_text("raise ValueError('at import\\nsecond line')")
    (tmp_path / "empty.py").write_text("")
    found = MiddlewareSet(
        str(tmp_path), (entry("Marks"), MiddlewareEntry(path, options)), {"openai": ()}
    )
    with pytest.raises(ConfigError, match=message) as caught:
        check(found)
    (problem,) = caught.value.problems
    assert problem.startswith("middleware[1].path: ")
    assert "\n" not in problem


def test_every_one_that_is_wrong_is_named() -> None:
    found = MiddlewareSet("", (entry("A"),), {"openai": (entry("Marks"), entry("B"))})
    with pytest.raises(ConfigError) as caught:
        check(found)
    first, second = caught.value.problems
    assert first.startswith("middleware[0].path: ")
    assert second.startswith("providers.openai.middleware[1].path: ")


def test_one_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    path, expected = f"{HERE}:Fails", r"middleware\[0\]: .*Fails fails: OSError: no such file\Z"
    with pytest.raises(ConfigError, match=expected):
        create_app(a_config(tmp_path, "http://127.0.0.1:9", middleware=[{"path": path}]))


def test_serve_says_it_in_one_line_and_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "providers: {ollama: {}}\nmiddleware: [{path: 'no_such_module:X'}]\n"
        "server: {port: 0}\nadmin: {port: 0}\n"
    )
    done = run(["--config", str(config), "serve"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("no_such_module") >= 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "journal").exists()


def test_check_tells_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def good(app): return app\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        "providers: {ollama: {middleware: [{path: 'mine:bad'}]}}\n"
        "middleware: [{path: 'mine:good'}]\n"
    )
    done = run(["--config", str(config), "check", "--format", "ndjson"], tmp_path)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if '"middleware"' in line]
    assert ['"ok"' in line for line in lines] == [True, False]
    assert "mine has no bad" in lines[1]


def test_a_reply_that_is_cut_is_not_logged_as_an_error() -> None:
    def record(kind: type[BaseException]) -> logging.LogRecord:
        info = (kind, kind("x"), None)
        return logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "failed", (), info)

    assert not CutReplies().filter(record(ConnectionAbortedError))
    assert CutReplies().filter(record(ValueError))


def test_replies_that_need_no_model_pass_it_too(stage: Stage) -> None:
    stage.provider.reply(json_reply({"data": []}))
    answer = stage.http.get("/v1/models", headers=credential("openai"))
    assert answer.json() == {"data": []}
    assert answer.headers["x-mark"] == "inner-2, inner-1, outer-2, outer-1"
