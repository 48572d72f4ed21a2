"""Messages to channels: what is due is claimed, tried, and tried again until it is given up.

An attempt is a few tries within seconds; then the next one waits, each longer than the last and by
chance somewhat more or less, so that hosts do not come all at once.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from db import alerts as db
from db.alerts import DELIVERED, GIVEN_UP, PENDING, Attempt, Message
from proxy.config import Alerts
from proxy.control.alerts import channels
from proxy.control.alerts.channels import Undelivered, Unreachable
from proxy.control.alerts.messages import Content
from proxy.control.alerts.routes import channels as configured
from proxy.control.alerts.store import Store
from proxy.control.clock import Clock

log = logging.getLogger(__name__)

TRIES = 3
TRY_WAIT_S_MAX = 5.0
CLAIM_MS = 120_000  # longer than all tries of an attempt can take
AGAIN_MS = 60_000
AGAIN_MS_MAX = 3_600_000
AT_ONCE_MAX = 16
HOUR_MS = 3_600_000

Fill = Callable[[Message], Awaitable[Content]]  # reports are made when they are sent
Count = Callable[[str, str], None]  # channel, outcome
Sleep = Callable[[float], Awaitable[None]]


class Deliveries:
    def __init__(
        self, store: Store, clock: Clock, fill: Fill, count: Count, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._store = store
        self._clock = clock
        self._fill = fill
        self._count = count
        self._sleep = sleep

    async def step(self, alerts: Alerts) -> int:
        """Try what is due, all at the same time. Returns how many. Raises what the database
        raises."""
        now_ms = self._clock.now_ms()
        names = configured(alerts).keys()

        async def look(connection: AsyncConnection) -> list[Attempt]:
            return await connection.run_sync(db.due, names, now_ms, AT_ONCE_MAX)

        due = await self._store.read(look)
        await asyncio.gather(*(self._attempt(alerts, attempt) for attempt in due))
        return len(due)

    async def _attempt(self, alerts: Alerts, attempt: Attempt) -> None:
        now_ms = self._clock.now_ms()
        message = await self._store.write(
            partial(db.claim, attempt=attempt, until_ms=now_ms + CLAIM_MS)
        )
        if message is None:  # another host has it
            return
        try:
            content = await self._fill(message)
            await self.send(alerts, attempt.channel, content)
        except Undelivered as exc:
            await self._failed(alerts, attempt, str(exc))
        except Exception as exc:
            log.exception("alert %s cannot be sent", attempt.alert_id)
            await self._failed(alerts, attempt, f"internal error ({type(exc).__name__})")
        else:
            self._count(attempt.channel, DELIVERED)
            await self._settle(attempt, DELIVERED)

    async def send(self, alerts: Alerts, name: str, content: Content) -> None:
        """A few tries within seconds, recorded nowhere. Raises Undelivered."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(max=TRY_WAIT_S_MAX),
            sleep=self._sleep,
            reraise=True,
        )

        async def tried() -> None:  # tenacity awaits what it recognises as a coroutine function
            channel = configured(alerts)[name]
            await channels.deliver(channel, content, lambda: self._clock.now_ms() / 1000)

        await retrying(tried)

    async def _failed(self, alerts: Alerts, attempt: Attempt, error: str) -> None:
        now_ms = self._clock.now_ms()
        wait_ms = min(AGAIN_MS * 2**attempt.attempts, AGAIN_MS_MAX)
        next_at_ms = now_ms + round(wait_ms * random.uniform(0.75, 1.25))  # noqa: S311
        late = next_at_ms - attempt.since_ms > alerts.give_up_h * HOUR_MS
        state = GIVEN_UP if late else PENDING
        self._count(attempt.channel, GIVEN_UP if late else "failed")
        what = "given up" if late else "not delivered"
        log.warning("alert %s %s to %s: %s", attempt.alert_id, what, attempt.channel, error)
        await self._settle(attempt, state, next_at_ms=next_at_ms, error=error)

    async def _settle(
        self, attempt: Attempt, state: str, *, next_at_ms: int = 0, error: str = ""
    ) -> None:
        settle = partial(
            db.settle, attempt=attempt, state=state, now_ms=self._clock.now_ms(),
            next_at_ms=next_at_ms, error=error,
        )  # fmt: skip
        await self._store.write(settle)
