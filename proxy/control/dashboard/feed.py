"""Calls as they end, as server-sent events: rows of a table, ready to be put on top of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response, StreamingResponse

from db.errors import DatabaseError
from proxy.control.dashboard.calls import ROWS_MAX, conditions, filters_of, newest
from proxy.control.dashboard.render import HEADERS
from proxy.control.dashboard.site import Visit
from proxy.wire import Refused

STREAMS_MAX = 16
LOOK_S = 1.0
BEAT_LOOKS = 15  # a sign of life each so many looks
STREAM_S_MAX = 3600.0  # browsers come back by themselves


class Feed:
    """Streams end when their session does, or control."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._streams = 0

    async def answer(self, visit: Visit) -> Response:
        where = conditions(visit, visit.request.query_params)
        if self._streams >= STREAMS_MAX:
            headers = {**HEADERS, "retry-after": "60"}
            return Response("too many live views are open", 503, headers, "text/plain")
        self._streams += 1
        events = self._events(visit, where)
        return StreamingResponse(events, 200, HEADERS, "text/event-stream")

    async def _events(self, visit: Visit, where: dict[str, str]) -> AsyncIterator[str]:
        began = time.monotonic()
        watch = _Watch(visit, where)
        try:
            yield "retry: 2000\n\n"
            while self._goes_on(visit, began):
                for event in await watch.look():
                    yield event
                await asyncio.sleep(self._look_s)
            yield event_of("over", "")
        finally:
            self._streams -= 1

    @staticmethod
    def _goes_on(visit: Visit, began: float) -> bool:
        control, sessions = visit.backend.control, visit.site.sessions
        in_time = time.monotonic() - began < STREAM_S_MAX
        return in_time and control.parts is not None and sessions.identity(visit.ticket) is not None


class _Watch:
    """What one stream has shown already."""

    def __init__(self, visit: Visit, where: dict[str, str]) -> None:
        self._visit = visit
        self._where = where
        self._shown: set[str] = set()
        self._looks = 0
        self._reading: asyncio.Future[list[dict[str, Any]]] | None = None

    async def look(self) -> list[str]:
        """Events for what is new, the oldest first. Calls are shown as they end, however early
        they began, as long as they are among the newest."""
        visit, self._looks = self._visit, self._looks + 1
        try:
            # A client that goes away cancels this, and a connection must be closed in peace.
            self._reading = asyncio.ensure_future(self._newest())
            rows = await asyncio.shield(self._reading)
        except (DatabaseError, SQLAlchemyError, OSError):
            return [event_of("outage", "")]
        refused = [each for each in self._refused() if each.request_id not in self._shown]
        new = [row for row in rows if row["request_id"] not in self._shown]
        self._shown = {row["request_id"] for row in rows} | {
            each.request_id for each in self._refused()
        }
        events = [
            *(event_of("call", visit.text("parts/call_row.html", row=row)) for row in new[::-1]),
            *(event_of("call", visit.text("parts/refused_row.html", row=row)) for row in refused),
        ]
        # Something must be written now and then: that is how a client that is gone is noticed.
        return events or ([": here\n\n"] if self._looks % BEAT_LOOKS == 0 else [])

    async def _newest(self) -> list[dict[str, Any]]:
        backend = self._visit.backend
        filters = filters_of(self._where, backend.now_ms)
        async with backend.reading() as connection:
            return await newest(connection, filters)

    def _refused(self) -> list[Refused]:
        """The oldest first; a condition they do not tell of hides them."""
        newest = self._visit.backend.control.refusals.newest(self._visit.identity.sees)
        found = [each for each in newest[:ROWS_MAX] if _fits(each, self._where)]
        return found[::-1]


def _fits(refused: Refused, where: dict[str, str]) -> bool:
    team = f"{refused.organization}/{refused.team}"
    return all(
        value in (getattr(refused, name), team if name == "team" else None)
        for name, value in where.items()
    )


def event_of(name: str, html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n"
