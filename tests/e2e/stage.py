"""A running Tollkeeper between a scripted provider and clients, shared by the tests of a module."""

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tests.e2e.shapes import CHAT, Shape
from tests.harness import KEY, Running, a_config
from tests.replay import ReplayServer

T = TypeVar("T")
C = TypeVar("C", bound=contextlib.AbstractContextManager[Any])
WAIT_S = 10.0
_numbers = itertools.count(1)


def eventually(look: Callable[[], T], timeout_s: float = WAIT_S) -> T:
    """The first true value of `look`."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} never came true"
        time.sleep(0.005)
    return found


def credential(dialect: str, key: str = KEY) -> dict[str, str]:
    """A key where the dialect's SDK puts it; "": none."""
    if not key:
        return {}
    if dialect == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    if dialect == "gemini":
        return {"x-goog-api-key": key}
    return {"authorization": f"Bearer {key}"}


class Stage:
    """`with Stage(directory, **changes of the configuration) as stage`."""

    def __init__(
        self,
        directory: Path,
        now_s: Callable[[], float] = time.time,
        provider: ReplayServer | None = None,
        **changes: Any,
    ):
        self._directory = directory
        self._provider = provider  # None: one of its own
        self._changes = changes
        self._now_s = now_s
        self._stack = ExitStack()
        self._since_ms = 0
        self._known: set[str] = set()
        self.billed_before = Decimal(0)
        self.provider: ReplayServer
        self.app: Running
        self.http: httpx.Client

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.provider = self._provider or stack.enter_context(ReplayServer())
            config = a_config(self._directory, self.provider.url, **self._changes)
            self.app = stack.enter_context(Running(config, now_s=self._now_s))
            self.http = stack.enter_context(httpx.Client(base_url=self.app.url, timeout=WAIT_S))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def opened(self, client: C) -> C:
        """A client that is closed before the proxy is: one left to the collector may leave its
        sockets open, and a warning with whatever test runs then."""
        return self._stack.enter_context(client)

    def reload(self, **changes: Any) -> None:
        """A new configuration, in force when this returns."""
        control = self.app.app.control
        self._changes |= changes
        config = a_config(self._directory, self.provider.url, **self._changes)
        self.app.run(control.reload(config))
        assert control.snapshot is not None
        revision = control.snapshot.revision
        eventually(lambda: control.in_force >= revision, timeout_s=1.0)

    @contextlib.contextmanager
    def configured(self, **changes: Any) -> Iterator[None]:
        """Another configuration for a while."""
        before = dict(self._changes)
        self.reload(**changes)
        try:
            yield
        finally:
            self._changes = before
            self.reload()

    # --- calls

    def headers(self, shape: Shape, key: str = KEY) -> dict[str, str]:
        return credential(shape.dialect, key) | {"content-type": "application/json"}

    def call(
        self, shape: Shape, *, key: str = KEY, headers: dict[str, str] | None = None, **changes: Any
    ) -> httpx.Response:
        """The whole answer to a call; `changes` are of the request's body."""
        return self.http.post(
            shape.path,
            content=shape.request(**changes),
            headers=self.headers(shape, key) | (headers or {}),
        )

    def paid(self, shape: Shape, **changes: Any) -> httpx.Response:
        """A call that the provider answers as the shape says."""
        self.provider.reply(shape.reply())
        answer = self.call(shape, **changes)
        assert answer.status_code == 200, answer.text
        return answer

    @contextlib.contextmanager
    def raw_call(
        self, shape: Shape, *, headers: dict[str, str] | None = None, length: int | None = None
    ) -> Iterator["RawCall"]:
        """A call on a socket of its own, which the test may close at any moment. `length`:
        announced instead of the body's own, none of which is sent then."""
        body = shape.request() if length is None else b""
        fields = self.headers(shape) | (headers or {})
        fields["content-length"] = str(len(body) if length is None else length)
        lines = [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([f"POST {shape.path} HTTP/1.1", "host: t", *lines])
        host, _, port = self.app.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as sock:
            sock.sendall(head.encode() + b"\r\n\r\n" + body)
            yield RawCall(sock)

    # --- what came of it

    def begin(self) -> None:
        """A new test: the provider's script is empty, and `rows` are those of calls from now on.
        Nothing may be in flight."""
        self.provider.reset()
        self.billed_before = self.billed()
        self._since_ms = int(self._now_s() * 1000)  # the clock of a test may stand still
        self._known = {row["request_id"] for row in self.app.rows(self._since_ms)}

    def rows(self) -> list[dict[str, Any]]:
        rows = self.app.rows(self._since_ms)
        return [row for row in rows if row["request_id"] not in self._known]

    def row(self, answer: httpx.Response) -> dict[str, Any]:
        """The one row of an answered call."""
        return self.row_where(lambda row: row["request_id"] == id_of(answer))

    def tagged(self) -> tuple[dict[str, str], Callable[[], dict[str, Any]]]:
        """A header that marks calls, and a look at the one row so marked."""
        tag = str(next(_numbers))
        return {"x-tollkeeper-tags": f"mark={tag}"}, lambda: self.row_where(
            lambda row: row["tags"].get("mark") == tag
        )

    def row_where(self, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        rows = eventually(lambda: [row for row in self.rows() if matches(row)])
        assert len(rows) == 1, rows
        return rows[0]

    def billed(self) -> Decimal:
        """The sum of all rows there are."""
        return sum((Decimal(row["cost_usd"]) for row in self.rows()), self.billed_before)

    def standing(self, **changes: Any) -> dict[str, Any]:
        """What a budget says of itself when a call asks for more than it will ever have."""
        answer = self.call(CHAT, model="gpt-4o", max_completion_tokens=10**9, **changes)
        assert answer.status_code == 429, answer.text
        return error_of(answer)

    def nothing_held(self) -> dict[str, Any]:
        """`standing`, as soon as no call holds money any more."""
        return eventually(lambda: [found for found in [self.standing()] if found["held"] == "0"])[0]

    def hang_up_is_noticed(self) -> None:
        """Wait until the proxy knows that all clients of calls in flight are gone."""
        gateway = self.app.app.gateway
        assert gateway is not None
        eventually(lambda: all(call.client.gone for call in list(gateway.in_flight)))

    def seen(self) -> int:
        """How many requests the provider has got."""
        return len(self.provider.requests)


class RawCall:
    """The client's end of one call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.received = b""

    def read_until(self, *marks: bytes) -> bytes:
        """Read until all of these have come, one after the other; everything so far."""
        at = 0
        for mark in marks:
            while (found := self.received.find(mark, at)) < 0:
                data = self._sock.recv(65536)
                assert data, self.received
                self.received += data
            at = found + len(mark)
        return self.received

    def read_all(self) -> bytes:
        """Everything until the connection is closed or reset."""
        with contextlib.suppress(ConnectionResetError):
            while data := self._sock.recv(65536):
                self.received += data
        return self.received

    def hang_up(self) -> None:
        self._sock.close()


def id_of(answer: httpx.Response) -> str:
    return answer.headers["x-tollkeeper-request-id"]


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Code and details of a refusal, in whatever dialect."""
    body = answer.json()
    error = body.get("error", body)  # cohere: the body itself
    if "details" in error and isinstance(error["details"], list):  # gemini
        info = error["details"][0]
        return {"code": info["reason"].lower(), **info["metadata"]}
    if "error_code" in error.get("details", {}):  # anthropic
        details = dict(error["details"])
        return {"code": details.pop("error_code"), **details}
    return {"code": error["code"], **error.get("details", {})}
