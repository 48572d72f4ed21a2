"""The data plane's ASGI application: every request enters, and every call ends, here."""

import asyncio
import time
from collections.abc import Callable, Coroutine

from db.journal_files import JournalError
from proxy.admission import admit
from proxy.arrival import Arrival
from proxy.batches import read_parts
from proxy.budgets import Budgets
from proxy.call import Call, authenticate, check_metered, find_route, read_request
from proxy.client import AsgiClient, ClientGoneError, Receive, Scope, Send
from proxy.errors import Refusal
from proxy.ids import CallIds
from proxy.learned import Learned
from proxy.objects import Objects
from proxy.outcome import at_the_hold, outcome
from proxy.passthrough import pass_through
from proxy.refuse import refusal_headers
from proxy.relay import forward, relay
from proxy.settlement import settlement
from proxy.state import State
from proxy.telemetry import Telemetry
from proxy.upstream import Pool, UpstreamError, UpstreamTimeout

ME = b"/tollkeeper/v1/me"
_OWN_PATHS = frozenset([b"/healthz", b"/readyz", ME])
_JSON = (b"content-type", b"application/json")
DRAINING = Refusal("draining", "Tollkeeper is shutting down. Try again.", retry_after_s=1)


class Gateway:
    """Routes requests into the call path, settles every held call exactly once."""

    def __init__(
        self,
        *,
        pool: Pool,
        budgets: Budgets,
        telemetry: Telemetry,
        on_broken_journal: Callable[[], None],
        now_s: Callable[[], float] = time.time,
        objects: Objects | None = None,
    ) -> None:
        self.state: State | None = None
        self.in_flight: set[Call] = set()
        self._pool = pool
        self._budgets = budgets
        self._telemetry = telemetry
        self._on_broken_journal = on_broken_journal
        self.now_s = now_s
        self._objects = objects
        self._ids = CallIds()
        self._learned = Learned()
        self._closed: Refusal | None = None
        self._idle: asyncio.Event | None = None  # there once somebody waits for it

    # --- life of the gateway ---

    def drain(self) -> None:
        """Admit nothing more; calls in flight go on."""
        self._closed = DRAINING

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no call is in flight; False when that takes longer than `timeout_s`."""
        self._idle = idle = asyncio.Event()
        if not self.in_flight:
            idle.set()
        try:
            await asyncio.wait_for(idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def cut_all(self) -> None:
        """End what is in flight: each stream gets its error event, each call its settlement."""
        for call in self.in_flight:
            if call.task is not None:
                call.cut_by = DRAINING
                call.task.cancel()

    @property
    def closed(self) -> Refusal | None:
        """Why nothing is admitted any more."""
        return self._closed

    @property
    def ready(self) -> bool:
        """A snapshot has come and the doors are open."""
        return self.state is not None and self._closed is None

    # --- requests ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.handle(AsgiClient(scope, receive, send))
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def handle(self, client: AsgiClient) -> Coroutine[None, None, None]:
        """One request of whatever kind."""
        return self._answer_own(client) if client.raw_path in _OWN_PATHS else self.serve(client)

    async def _answer_own(self, client: AsgiClient) -> None:
        """Health, and what a caller may know of itself."""
        ready = self.ready
        if client.raw_path == ME and self.state is not None:
            from proxy.me import answer_me  # noqa: PLC0415 (few workers are asked)

            await answer_me(client, self.state, self._budgets, self.now_s())
            return
        if client.raw_path == b"/healthz":
            await client.answer(200, [_JSON], b'{"status":"ok"}')
        elif ready:
            await client.answer(200, [_JSON], b'{"status":"ready"}')
        else:
            await client.answer(503, [_JSON, (b"retry-after", b"1")], b'{"status":"not ready"}')

    async def serve(self, client: AsgiClient) -> None:
        """One request, from its head to its row."""
        state = self.state
        assert state is not None, "requests are served once the first snapshot has come"
        now_s = self.now_s()
        at_ms = int(now_s * 1000)
        arrival = client.arrival
        if arrival is not None and not arrival.holds(state, now_s):
            arrival = None
        call = Call(client, state, self._ids.new(at_ms), at_ms, arrival)
        call.task = client.task or asyncio.current_task()
        self.in_flight.add(call)
        try:
            await self._run(call, now_s)
        except Refusal as refusal:
            await self._refuse(call, refusal)
        except UpstreamError as exc:
            await self._upstream_failed(call, exc)
        except ClientGoneError:
            call.error = "client_gone"
        except asyncio.CancelledError:
            await self._cancelled(call)
        except Exception as exc:  # our bug: the caller gets an answer, the operator a traceback
            await self._crashed(call, exc)
        finally:
            self._end(call)

    async def _run(self, call: Call, now_s: float) -> None:
        """The path of one call."""
        self._check_open(call)
        settings = call.state.settings
        if call.arrival is None:
            find_route(call)
            authenticate(call, now_s)
            check_metered(call)
            assert call.route is not None
            if call.route.kind == "session":
                await self._session(call)
                return
            if call.route.kind != "metered":
                await pass_through(call, self._pool, settings.max_body_bytes, self._objects)
                return
            call.arrival = call.client.arrival = Arrival(call)
        if call.arrival.provider.auth is not None:
            await call.arrival.provider.auth.ready()
        body = call.client.body_now(settings.max_body_bytes)
        if body is None:
            body = await call.client.body(settings.max_body_bytes)
        read_request(call, body)
        if call.facts is not None and call.facts.later == "batch":
            assert self._objects is not None
            await read_parts(call, self._objects)
        call.client.watch(lambda: self._hung_up(call))
        await admit(call, self._budgets, self._learned, self.now_s())
        exchange = await forward(call, self._pool)
        await relay(call, exchange, self.settle)

    async def _session(self, call: Call) -> None:
        """A connection that carries many calls."""
        # Few workers have one, and they pay for what it takes once they do.
        from proxy.realtime import Session  # noqa: PLC0415
        from proxy.realtime_till import SessionTill  # noqa: PLC0415

        call.arrival = Arrival(call)
        call.client.watch(lambda: self._hung_up(call))
        till = SessionTill(call, self, self._budgets, self._learned, self._telemetry, self._ids)
        await Session(call, till, self._pool).run()

    def _check_open(self, call: Call) -> None:
        if self._closed is not None:
            raise self._closed
        if len(self.in_flight) > call.state.settings.max_concurrency:
            raise Refusal(
                "overloaded",
                "Too many calls in flight (server.max_concurrency). Try again in a moment.",
                retry_after_s=1,
            )

    # --- endings ---

    def settle(self, call: Call, ending: str) -> None:
        """Journal the settlement and free the hold; only the first settlement of a call counts."""
        if call.held is None or call.outcome is not None:
            return
        if ending == "complete" and call.client.gone:
            ending = "client_gone"  # the provider's reply was drained, nobody has it
        assert call.facts is not None
        assert call.bounds is not None
        assert call.hold is not None
        assert call.price is not None
        assert call.provider is not None
        assert call.arrival is not None
        find_price = call.arrival.price_of
        try:
            done = outcome(
                ending=ending,
                sent=call.sent,
                status=call.status,
                facts=call.facts,
                ceiling=call.bounds.ceiling,
                price=call.price,
                reading=call.meter.reading() if call.meter is not None else None,
                find_price=find_price,
                at_s=call.at_ms / 1000,
                charge_reported=call.provider.charge_reported,
                geo=call.provider.geo,
            )
        except Exception as exc:  # metering must not break a reply: charge the hold, flagged
            self._telemetry.problem("metering failed", call.request_id, exc)
            done = at_the_hold(ending, call.hold, call.price, find_price)
        call.outcome = done
        if call.state.learns and done.usage is not None and done.usage_source == "reported":
            self._learned.observe(call.price.name, call.facts.size, done.usage)
        record = settlement(call, done)
        try:
            self._budgets.settle(call.held, record)
        except JournalError as exc:
            # The hold stays in the journal and is charged in full when the journal is finished.
            self._telemetry.problem("journal is broken", call.request_id, exc)
            self._on_broken_journal()

    def _hung_up(self, call: Call) -> None:
        drain = call.state.settings.on_disconnect == "drain"
        if call.facts is not None and call.facts.later and not call.facts.stream:
            drain = True  # the reply has the name of what its usage will come with
        if call.task is not None and not (drain and call.sent):
            call.task.cancel()

    async def _cancelled(self, call: Call) -> None:
        """The client hung up, or we cut the reply ourselves."""
        if call.client.gone:
            call.error = "client_gone"
            self.settle(call, "client_gone")
        elif call.cut_by is not None:
            await self._cut(call, call.cut_by)
        else:
            self.settle(call, "cut")
            raise asyncio.CancelledError

    async def _cut(self, call: Call, reason: Refusal) -> None:
        """End a reply on our side: the dialect's error event, then the connection."""
        call.error = reason.code
        self.settle(call, "cut")
        if not call.client.started:
            await self._refuse(call, reason)
            return
        if call.facts is not None and call.facts.stream:
            event = call.dialect.error_event(call.facts, reason, call.request_id)
            if event:
                await call.client.write(event)
        call.client.cut()

    async def _upstream_failed(self, call: Call, exc: UpstreamError) -> None:
        if call.client.gone:
            self.settle(call, "client_gone")
            return
        host = call.provider.origin.host if call.provider is not None else ""
        timeout = isinstance(exc, UpstreamTimeout)
        refusal = Refusal(
            "upstream_timeout" if timeout else "upstream_unreachable",
            f"The provider at {host} could not be reached or broke off: {exc}.",
            {"provider": call.provider.name if call.provider else ""},
            retry_after_s=1,
        )
        call.error = refusal.code
        if not exc.answered:
            self.settle(call, "unreachable")
            await self._refuse(call, refusal)
        elif timeout:
            await self._cut(call, refusal)
        else:
            self.settle(call, "upstream_broken")
            if call.client.started:
                call.client.cut()
            else:
                await self._refuse(call, refusal)

    async def _crashed(self, call: Call, exc: Exception) -> None:
        if call.client.gone or isinstance(exc, ConnectionAbortedError):
            self.settle(call, "client_gone" if call.client.gone else "cut")
            if not call.client.gone:
                raise exc
            return
        self._telemetry.problem("internal error", call.request_id, exc)
        call.error = "internal_error"
        self.settle(call, "cut")
        if call.client.started:
            call.client.cut()
        else:
            message = (
                f"Tollkeeper failed on this call; the operator finds it under id {call.request_id}."
            )
            await self._refuse(call, Refusal("internal_error", message))

    async def _refuse(self, call: Call, refusal: Refusal) -> None:
        """Answer in the shape of the API that was called."""
        call.refusal = refusal
        refusal.status_override = call.refusal_status(refusal)  # the body speaks of it too
        body = call.dialect.error_body(refusal, call.request_id)
        headers = refusal_headers(refusal, call.request_id, call.dialect)
        await call.client.answer(refusal.status, headers, body)

    def _end(self, call: Call) -> None:
        """Whatever happened: nothing stays held, open or in flight."""
        self.settle(call, "cut")
        if call.exchange is not None:
            call.exchange.release()
        call.client.unwatch()
        self.in_flight.discard(call)
        if self._idle is not None and not self.in_flight:
            self._idle.set()
        self._telemetry.ended(call)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
