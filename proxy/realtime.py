"""A realtime session: a WebSocket between a client and a provider, metered turn by turn.

    hold for the first turn -> handshake with the provider -> relay whole frames both ways, each
    after the conversation has taken note of it -> settle what is open when either end goes

A client's event that could set off a turn nobody holds for waits; what the provider sends is
passed on as soon as the turns it ends are in the journal.
"""

import asyncio
from collections import deque
from typing import NamedTuple

import msgspec

from proxy.call import Call
from proxy.errors import Refusal
from proxy.forward import ReplyHead
from proxy.providers.openai_realtime import Event
from proxy.realtime_ends import End
from proxy.realtime_events import Conversation
from proxy.realtime_handshake import asked, switching_headers, upstream_head
from proxy.realtime_till import SessionTill
from proxy.upstream import Exchange, Pool, UpstreamBroken
from proxy.websocket import Fault, Frames, Piece, close_frame, text_frame

MESSAGE_BYTES_MAX = 24 * 1024 * 1024  # audio of 15 MiB in one event, in base64
QUEUED_BYTES_MAX = 256 * 1024  # of a client's messages that wait for a hold
TICK_S = 1.0  # between two looks at the clock, the key and the gateway's doors
CLOSE_S = 2.0  # for the other side's part of a closing handshake
ERROR_BODY_BYTES_MAX = 256 * 1024  # of a provider's refusal of the handshake
GOING_AWAY, POLICY, TOO_BIG, FAILED, RESTART, TRY_LATER = 1001, 1008, 1009, 1011, 1012, 1013
_CLOSE_CODES = {
    "draining": RESTART,
    "budget_busy": TRY_LATER,
    "ledger_unavailable": TRY_LATER,
    "internal_error": FAILED,
    "upstream_unreachable": FAILED,
    "upstream_timeout": FAILED,
}
_WAITS = "waits for a hold"


class Waiting(NamedTuple):
    """What a client sent: a whole message, or its close frame."""

    raw: bytes
    message: bytes | None  # None: it closes
    text: bool


class Session:
    """One connection, from its handshake to the last row."""

    def __init__(self, call: Call, till: SessionTill, pool: Pool) -> None:
        self._call = call
        self._till = till
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        assert call.provider is not None
        self._talk = Conversation(asked(call), till, self._changed, call.provider.models)
        limit = min(MESSAGE_BYTES_MAX, call.state.settings.max_body_bytes)
        self._client = End(
            Frames(masked=True, message_bytes_max=limit),
            on_piece=self._from_client,
            on_fault=self._client_fault,
            on_gone=self._client_gone,
        )
        self._upstream = End(
            Frames(masked=False, message_bytes_max=limit),
            on_piece=self._from_provider,
            on_fault=self._upstream_fault,
            on_gone=self._upstream_gone,
        )
        self._client.other, self._upstream.other = self._upstream, self._client
        # what the client has sent and may not go on yet
        self._parts: list[bytes] = []  # frames of a message that is not complete
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = 0
        self._noted: Event | None = None  # the first of the queue, once taken note of
        # how it ends
        self._closed = False  # nothing is metered any more: all turns are settled
        self._left = False  # the client has said goodbye
        self._closer: asyncio.TimerHandle | None = None
        # time
        self._ticker: asyncio.TimerHandle | None = None
        self._moved_at = self._loop.time()  # when a message came last
        self._answered_at = self._moved_at  # when the provider sent one

    # --- the life of a session

    async def run(self) -> None:
        """Until both ends are closed. Raises Refusal, UpstreamError before it has begun."""
        ending = "unreachable"
        try:
            await self._talk.open()
            exchange = await self._shake_hands()
            ending = "upstream_error"
            if exchange.status != 101:
                await self._relay_refusal(exchange)
                return
            self._join(exchange)
            ending = "cut"
            await self._over
        except asyncio.CancelledError:
            if ending == "cut":  # else the client hung up before there was a session
                self._refuse(self._call.cut_by or Refusal("draining", "Tollkeeper shuts down."))
            raise
        finally:
            for timer in (self._ticker, self._closer):
                if timer is not None:
                    timer.cancel()
            self._talk.close(ending, unused="unused" if ending == "cut" else ending)
            self._upstream.close()

    async def _shake_hands(self) -> Exchange:
        call = self._call
        provider = call.provider
        assert provider is not None
        if provider.auth is not None:
            await provider.auth.ready()
        exchange = call.exchange = self._pool.exchange()
        exchange.may_upgrade = True
        await self._pool.send(exchange, provider.origin, upstream_head(call))
        call.status = exchange.status
        if exchange.status == 101 and exchange.rest is None:
            raise UpstreamBroken("its 101 is no WebSocket's", sent=True, answered=True)
        return exchange

    async def _relay_refusal(self, exchange: Exchange) -> None:
        """The provider's own answer to the handshake."""
        head, body = ReplyHead(exchange.headers), b""
        while len(body) <= ERROR_BODY_BYTES_MAX and (data := await exchange.read()):
            body += data
        request_id = self._call.request_id.encode("ascii")
        headers = [*head.headers, (b"x-tollkeeper-request-id", request_id)]
        await self._call.client.answer(exchange.status, headers, body)

    def _join(self, exchange: Exchange) -> None:
        """From here on bytes are frames. Raises UpstreamBroken."""
        client = self._call.client
        headers = switching_headers(self._call, exchange.headers)
        client.unwatch()
        transport = client.upgrade(headers, self._client)
        if transport is None:
            self._client.gone = True
            self._end("client_gone")
            return
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        self._client.attach(transport)
        self._upstream.attach(exchange.take_over(self._upstream), exchange.rest or b"")

    def _tick(self) -> None:
        """Once a second: time limits, the key, and whether the gateway is closing."""
        now, busy = self._loop.time(), self._talk.is_busy()
        quiet_s = now - (self._answered_at if busy else self._moved_at)
        try:
            if self._till.closed is not None and not busy:
                raise self._till.closed
            if quiet_s > self._till.renew().state.settings.idle_timeout_s:
                raise Refusal("upstream_timeout", f"Nothing has come for {quiet_s:.0f} seconds.")
        except Refusal as refusal:
            self._refuse(refusal)
        if not self._closed:
            self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _changed(self) -> None:
        """A hold has come or was refused, or a turn has ended."""
        verdict = self._talk.verdict()
        if verdict is not None:
            self._refuse(verdict)
        else:
            self._advance()

    # --- from the client

    def _from_client(self, piece: Piece) -> None:
        if piece.is_control and not piece.is_close:
            self._upstream.write(piece.raw)
            return
        if self._closed or self._left:
            if piece.is_close:  # the answer to ours
                self._client.close()
            return
        self._parts.append(piece.raw)
        if piece.message is None and not piece.is_close:
            return
        raw, self._parts = b"".join(self._parts), []
        self._queue.append(Waiting(raw, piece.message, piece.text))
        self._queued_bytes += len(raw)
        self._moved_at = self._loop.time()
        self._advance()

    def _advance(self) -> None:
        """Pass on what may go on, in its order."""
        while self._queue and not self._closed:
            first = self._queue[0]
            passes = first.message is None or self._passes(first)
            if passes is None:
                break
            self._queue.popleft()
            self._queued_bytes -= len(first.raw)
            self._noted = None
            if passes:
                self._upstream.write(first.raw)
            if first.message is None:
                self._left = True
                self._close_soon("client_gone")
        if self._queued_bytes > QUEUED_BYTES_MAX:
            self._client.pause(_WAITS)
        else:
            self._client.resume(_WAITS)

    def _passes(self, waiting: Waiting) -> bool | None:
        """None: not yet; False: never, and the client has been told."""
        try:
            if self._noted is None:
                if not waiting.text or waiting.message is None:
                    raise Refusal("bad_request", "Events are text messages, not binary ones.")
                self._noted = self._talk.client_says(waiting.message)
            return True if self._talk.may_pass(self._noted) else None
        except Refusal as refusal:
            self._tell(refusal)
            return False

    def _client_fault(self, fault: Fault) -> None:
        code = "request_too_large" if fault.code == TOO_BIG else "bad_request"
        self._refuse(Refusal(code, f"Not as a WebSocket must be: {fault.reason}."), fault.code)

    def _client_gone(self, exc: Exception | None) -> None:
        self._call.client.lost(exc)
        if not self._closed and not self._left:
            self._upstream.write(close_frame(GOING_AWAY, masked=True))
        self._end("client_gone")

    # --- from the provider

    def _from_provider(self, piece: Piece) -> None:
        if piece.message is not None and not self._closed:
            self._moved_at = self._answered_at = self._loop.time()
            if piece.text:
                self._talk.provider_says(piece.message)
        if not self._closed:
            self._client.write(piece.raw)
            if piece.is_close:
                self._said_goodbye()
            else:
                self._changed()

    def _said_goodbye(self) -> None:
        """The provider's close frame is passed on."""
        ending = "client_gone" if self._left else "upstream_broken"
        self._settle(ending)
        self._close_soon(ending)
        if self._left:
            self._client.close()

    def _upstream_fault(self, fault: Fault) -> None:
        broken = Refusal("upstream_unreachable", f"The provider broke off: {fault.reason}.")
        self._refuse(broken, ending="upstream_broken")

    def _upstream_gone(self, exc: Exception | None) -> None:
        if self._left:
            self._end("client_gone")
        else:
            why = f": {exc}" if exc else ""
            gone = Refusal("upstream_unreachable", f"The provider closed the connection{why}.")
            self._refuse(gone, ending="upstream_broken")

    # --- endings

    def _tell(self, refusal: Refusal) -> None:
        """An error event in the shape of the API's own, unless the client is in the middle of
        another message."""
        visit = self._till.visit
        refusal.status_override = visit.refusal_status(refusal)
        body = msgspec.json.decode(visit.dialect.error_body(refusal, visit.request_id))
        error = body["error"]
        error["event_id"] = (self._noted.id or None) if self._noted is not None else None
        event = {"type": "error", "event_id": f"event_{visit.call_id.hex()}", "error": error}
        if self._upstream.frames.between_messages:
            self._client.write(text_frame(msgspec.json.encode(event)))

    def _refuse(self, refusal: Refusal, code: int = 0, *, ending: str = "cut") -> None:
        """End the session ourselves: settle, say why, close."""
        if self._closed:
            return
        self._call.error = refusal.code
        self._settle(ending)
        self._noted = None
        self._tell(refusal)
        code = code or _CLOSE_CODES.get(refusal.code, POLICY)
        self._client.write(close_frame(code, refusal.code))
        self._upstream.write(close_frame(GOING_AWAY, masked=True))
        self._upstream.close()
        self._close_soon(ending)

    def _settle(self, ending: str) -> None:
        """Nothing is metered from here on."""
        self._closed = True
        self._talk.close(ending)
        self._queue.clear()
        self._queued_bytes = 0
        self._client.resume(_WAITS)

    def _close_soon(self, ending: str) -> None:
        """A close frame is on its way: the other side has a moment to answer it."""
        if self._closer is None:
            self._closer = self._loop.call_later(CLOSE_S, self._end, ending)

    def _end(self, ending: str) -> None:
        """Both ends are closed, or have had the time for it."""
        self._settle(ending)
        self._client.close()
        self._upstream.close()
        if not self._over.done():
            self._over.set_result(None)
