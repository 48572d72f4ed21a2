"""Receivers of alerts that never answer: calls, their rows and the end of the proxy do not wait."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from db import alerts as db
from db.engine import open_engine, reader
from proxy.control.alerts import alerting, channels, deliveries, mail
from tests.e2e.shapes import CHAT, CHAT_STREAM
from tests.e2e.stage import WAIT_S, Stage, eventually
from tests.replay import ReplayServer

CALLS = 5
BUDGET = {"scope": "team/acme/search", "limit_usd": 1, "alert_at": [0.001]}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts are looked for and delivered without delay, and nobody gives up on a receiver."""
    monkeypatch.setattr(alerting, "LOOK_S", 0.01)
    monkeypatch.setattr(alerting, "DELIVER_S", 0.01)
    monkeypatch.setattr(deliveries, "CLAIM_MS", 0)  # the next life need not wait
    for module, limit in ((channels, "TIMEOUT_S"), (channels, "TOTAL_S"), (mail, "TIMEOUT_S")):
        monkeypatch.setattr(module, limit, 600.0)


@contextlib.contextmanager
def receiver() -> Iterator[socket.socket]:
    """Takes connections; what it says to them is up to the test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        yield listener


def configured(hook: socket.socket, post: socket.socket) -> dict[str, Any]:
    url = f"http://127.0.0.1:{hook.getsockname()[1]}/hook"
    email = {"kind": "email", "host": "127.0.0.1", "port": post.getsockname()[1]}
    email |= {"security": "none", "sender": "tk@example.com", "recipients": ["ops@example.com"]}
    return {"channels": {"hook": {"kind": "webhook", "url": url, "secret": "s"}, "mail": email}}


def deliveries_of(stage: Stage) -> dict[str, tuple[str, int]]:
    async def recent() -> list[db.RecentAlert]:
        engine = open_engine(stage.app.config.database.url, read_only=True)
        async with reader(engine).connect() as connection:
            found = await connection.run_sync(partial(db.recent, kinds=["budget_threshold"]))
        await engine.dispose()
        return found

    (alert,) = stage.app.run(recent())
    return {each.channel: (each.state, each.attempts) for each in alert.deliveries}


def request_of(held: socket.socket) -> bytes:
    """A webhook's request, whole: its body ends with the facts."""
    held.settimeout(WAIT_S)
    request = b""
    while not request.endswith(b"}"):
        request += held.recv(65536)
    return request


def test_calls_are_served_while_receivers_hang(tmp_path: Path) -> None:
    with ExitStack() as stack:
        provider = stack.enter_context(ReplayServer())
        hook, post = (stack.enter_context(receiver()) for _ in range(2))
        settings: dict[str, Any] = {"budgets": [BUDGET], "alerts": configured(hook, post)}
        with Stage(tmp_path, provider=provider, **settings) as stage:
            stage.paid(CHAT)
            stage.rows()
            held = [stack.enter_context(each.accept()[0]) for each in (hook, post)]
            first = request_of(held[0])
            for number in range(CALLS):
                stage.paid((CHAT, CHAT_STREAM)[number % 2])
            assert len(stage.rows()) == 1 + CALLS
            assert stage.app.findings() == []
            assert deliveries_of(stage) == {"hook": ("pending", 1), "mail": ("pending", 1)}
            for each in held:  # each has its answer still to come
                each.setblocking(False)
                with pytest.raises(BlockingIOError):
                    each.recv(1)
        # It has ended, and nobody was told: the next life says it again, under the same key.
        for each in held:
            each.close()
        with Stage(tmp_path, provider=provider, **settings) as stage:
            again = stack.enter_context(hook.accept()[0])
            second = request_of(again)
            assert key_of(second) == key_of(first)
            again.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            stack.enter_context(post.accept()[0])
            eventually(lambda: deliveries_of(stage)["hook"] == ("delivered", 2))
            assert deliveries_of(stage)["mail"] == ("pending", 2)
            stage.paid(CHAT)
            assert len(stage.rows()) == 2 + CALLS


def key_of(request: bytes) -> bytes:
    (line,) = (each for each in request.split(b"\r\n") if each.startswith(b"idempotency-key:"))
    return line
