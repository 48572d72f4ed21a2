"""A provider of the Realtime API that plays scripts over real WebSockets.

    with RealtimeProvider() as provider:
        provider.play(lambda peer: peer.turn(USAGE))
        ...connect to provider.url...
        provider.heads[0]["authorization"], provider.paths[0]

A script talks to one client: `peer.expect("response.create")`, `peer.say({...})`. It ends the
session when it returns.
"""

import itertools
import json
import threading
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

WAIT_S = 10.0
_ids = itertools.count(1)

# The example of OpenAI's reference, with an image and cached audio besides: 132 tokens in, of
# which 119 text, 13 audio; 64 text tokens from the cache; 121 tokens out, 91 of them audio.
USAGE = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}


class Peer:
    """The provider's end of one session."""

    def __init__(self, connection: ServerConnection, events: list[dict[str, Any]]) -> None:
        self.connection = connection
        self.events = events

    def say(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_{next(_ids)}", **fields}
        self.connection.send(json.dumps(event))

    def next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.connection.recv(timeout=WAIT_S))
        self.events.append(event)
        return event

    def expect(self, kind: str) -> dict[str, Any]:
        """The client's next event of a kind; others before it are taken note of."""
        while (event := self.next())["type"] != kind:
            pass
        return event

    def greet(self, model: str = "gpt-realtime", **session: Any) -> None:
        fields = {"type": "realtime", "model": model, **session}
        self.say("session.created", session=fields)

    def begin(self) -> str:
        """A response begins and has said a word."""
        response_id = f"resp_{next(_ids)}"
        self.say("response.created", response={"id": response_id, "status": "in_progress"})
        self.say("response.output_text.delta", response_id=response_id, delta="hello")
        return response_id

    def done(self, response_id: str, usage: Any = USAGE, status: str = "completed") -> None:
        response = {"id": response_id, "status": status, "usage": usage, "output": []}
        self.say("response.done", response=response)

    def turn(self, usage: Any = USAGE) -> str:
        response_id = self.begin()
        self.done(response_id, usage)
        return response_id

    def drop(self) -> None:
        """Break the connection without a word."""
        self.connection.socket.shutdown(2)

    def wait_closed(self) -> None:
        """Until the other side closes, taking note of its events."""
        try:
            while True:
                self.next()
        except ConnectionClosed:
            pass


Script = Callable[[Peer], None]


class RealtimeProvider:
    """See the module."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.subprotocols: list[list[str]] = []
        self.events: list[dict[str, Any]] = []
        self.problems: list[BaseException] = []
        self.refusal: HTTPStatus | None = None
        self._scripts: deque[Script] = deque()
        self._server: Server
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        self._server = serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._arrive,
            select_subprotocol=lambda _, names: names[0] if names else None,
            max_size=None,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join(WAIT_S)
        if exc is None:
            assert not self.problems, self.problems

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def play(self, *scripts: Script) -> None:
        """Queue scripts; each plays for one session."""
        self._scripts.extend(scripts)

    def reset(self) -> None:
        for seen in (self.paths, self.heads, self.subprotocols, self.events):
            seen.clear()
        self._scripts.clear()
        self.refusal = None

    def _arrive(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.heads.append({name.lower(): value for name, value in request.headers.raw_items()})
        offered = request.headers.get("sec-websocket-protocol", "")
        self.subprotocols.append([name.strip() for name in offered.split(",") if name])
        if self.refusal is not None:
            return connection.respond(self.refusal, '{"error": {"message": "no"}}')
        return None

    def _handle(self, connection: ServerConnection) -> None:
        try:
            self._scripts.popleft()(Peer(connection, self.events))
        except ConnectionClosed:
            pass
        except BaseException as exc:
            self.problems.append(exc)
