"""Alerts as a chore of control's, beside its turns: look, raise, deliver.

It reads on a connection of its own and writes in short transactions of its own; control's turns,
the flush and calls do not wait for it. Each of several hosts looks; whoever inserts first tells.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from db import alerts as db
from db.alerts import REPORT, Message, NewAlert
from db.errors import ReportError, reason
from db.transactions import is_retryable
from pricing.money import nano_from_usd
from proxy.config import Alerts
from proxy.control.alerts.budgets import crossed, exhausting
from proxy.control.alerts.channels import Undelivered
from proxy.control.alerts.customers import crossed_by_customers
from proxy.control.alerts.deliveries import Deliveries, Sleep
from proxy.control.alerts.host import HostWatch
from proxy.control.alerts.later import settled_above
from proxy.control.alerts.messages import Content
from proxy.control.alerts.outage import KIND as OUTAGE
from proxy.control.alerts.outage import OutageWatch
from proxy.control.alerts.routes import route
from proxy.control.alerts.scheduled import due_reports, fill_report
from proxy.control.alerts.spend import Watched, anomalies
from proxy.control.alerts.store import Store
from proxy.control.alerts.trials import sparing
from proxy.control.clock import Due
from proxy.control.control import Control
from proxy.control.host import host_id
from proxy.wire import BudgetEntry

log = logging.getLogger(__name__)

LOOK_S = 5.0
DELIVER_S = 1.0
DUE_S = 30.0  # what another host or an earlier life has left is looked for this often
CUSTOMERS_S = 15.0  # there may be many of them
LATER_S = 60.0
EXHAUSTION_S = 300.0
ANOMALIES_S = 60.0
FORGET_S = 3600.0
KEEP_MS = 400 * 86_400_000

Look = Callable[[AsyncConnection], Awaitable[list[NewAlert]]]


class Alerting:
    """`start`, `close`; or `look` and `deliver` by hand."""

    def __init__(self, control: Control, sleep: Sleep = asyncio.sleep) -> None:
        self._control = control
        self._sleep = sleep
        self._host_id = host_id(Path(control.config.journal.dir))
        self._store = Store(control.config.database.url, control.ledger_nice)
        self._deliveries = Deliveries(self._store, control.clock, self._fill, self._count, sleep)
        self._host = HostWatch(control, self._host_id)
        self._outage = OutageWatch(self._host_id)
        self._due = Due(control.clock)
        self._reported: dict[str, None] = {}  # identities that need no further look
        self._waiting = False  # something was raised here that is not delivered yet
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for name, every_s, step in (
            ("look", LOOK_S, self.look),
            ("deliver", DELIVER_S, self.deliver),
        ):
            self._tasks.append(asyncio.create_task(self._loop(name, every_s, step)))

    async def close(self) -> None:
        """What is being delivered is tried again by the next life."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._store.close()

    async def _loop(self, name: str, every_s: float, step: Callable[[], Awaitable[None]]) -> None:
        failing = False
        while True:
            await self._sleep(every_s)
            try:
                await step()
            except Exception as exc:
                if not failing:
                    trace = not is_retryable(exc)
                    log.warning("alerts cannot %s: %s", name, reason(exc), exc_info=trace)
                failing = True
            else:
                failing = False

    # --- looking

    async def look(self) -> None:
        """One round. Raises what the database raises; what it had seen is seen again."""
        control = self._control
        now_ms = control.clock.now_ms()
        outage = control.outage or (control.parts is not None and control.parts.leases.outage)
        await self._outage.step(outage, self._route(OUTAGE, ""), now_ms, self._send)
        if outage:
            return
        await self._end_outage(now_ms)
        for new in await self._seen(lambda connection: crossed(connection, now_ms)):
            await self._raise(new)
        if self._has(lambda budget: bool(budget.each)) and self._due.now("customers", CUSTOMERS_S):
            for new in await self._seen(lambda each: crossed_by_customers(each, now_ms)):
                await self._raise(new)
        if self._has(lambda budget: not budget.enforce):
            for new in await self._seen(lambda connection: sparing(connection, now_ms)):
                await self._raise(new)
        for new, key, count in self._host.grown(now_ms):
            self._host.told(key, count, now_ms, raised=await self._raise(new))
        await self._schedule(now_ms)
        await self._look_now_and_then(now_ms)

    async def _look_now_and_then(self, now_ms: int) -> None:
        if self._due.now("later", LATER_S):
            for new in await self._seen(lambda connection: settled_above(connection, now_ms)):
                await self._raise(new)
        if self._due.now("exhaustion", EXHAUSTION_S):
            for new in await self._seen(lambda connection: exhausting(connection, now_ms)):
                await self._raise(new)
        watched = self._watched()
        if watched is not None and self._due.now("anomalies", ANOMALIES_S):
            for new in await self._seen(lambda each: anomalies(each, watched, now_ms)):
                await self._raise(new)
        if self._due.now("forget", FORGET_S):
            await self._store.write(partial(db.forget, before_ms=now_ms - KEEP_MS))

    async def _seen(self, look: Look) -> list[NewAlert]:
        """What is to be raised, without what was."""

        async def unknown(connection: AsyncConnection) -> list[NewAlert]:
            found = await look(connection)
            known = await connection.run_sync(db.known, [new.identity for new in found])
            return [new for new in found if new.identity not in known]

        return await self._store.read(unknown)

    async def _schedule(self, now_ms: int) -> None:
        due = list(due_reports(self._control.config.reports, now_ms))
        for new, to in due:
            if new.identity not in self._reported:
                await self._raise(new, set(to))
        self._reported = {new.identity: None for new, _ in due}

    async def _end_outage(self, now_ms: int) -> None:
        written = self._outage.over(self._route(OUTAGE, ""), now_ms)
        if written is not None and await self._store.write(written):
            self._control.counts.alerts[OUTAGE] = self._control.counts.alerts.get(OUTAGE, 0) + 1
            self._waiting = True
        self._outage.forget()

    async def _raise(self, new: NewAlert, to: set[str] | None = None) -> bool:
        """False: somebody else has raised it."""
        channels = self._route(new.kind, new.scope) if to is None else to
        now_ms = self._control.clock.now_ms()
        write = partial(
            db.raise_alert, new=new, channels=channels, host_id=self._host_id, now_ms=now_ms
        )
        if await self._store.write(write) is None:
            return False
        counts = self._control.counts.alerts
        counts[new.kind] = counts.get(new.kind, 0) + 1
        self._waiting = True
        return True

    def _has(self, wanted: Callable[[BudgetEntry], bool]) -> bool:
        """Such a budget; True where it is not known."""
        snapshot = self._control.snapshot
        return snapshot is None or any(map(wanted, snapshot.budgets))

    def _watched(self) -> Watched | None:
        found = self._alerts.anomalies
        if found.by == "off":
            return None
        nano = nano_from_usd(Decimal(str(found.minimum_usd)))
        return Watched(found.by, found.weeks, nano, found.threshold)

    # --- telling

    async def deliver(self) -> None:
        """What is due now. Raises what the database raises."""
        if self._waiting or self._due.now("deliver", DUE_S):
            self._waiting = await self._deliveries.step(self._alerts) > 0

    async def _send(self, name: str, content: Content) -> None:
        await self._deliveries.send(self._alerts, name, content)
        self._count(name, db.DELIVERED)

    async def _fill(self, message: Message) -> Content:
        if message.kind != REPORT:
            return Content(message)
        now_ms = self._control.clock.now_ms()
        try:
            return await self._store.read(partial(fill_report, message=message, now_ms=now_ms))
        except ReportError as exc:
            raise Undelivered(str(exc)) from exc

    @property
    def _alerts(self) -> Alerts:
        return self._control.config.alerts

    def _route(self, kind: str, scope: str) -> set[str]:
        return route(self._alerts, kind, scope)

    def _count(self, channel: str, outcome: str) -> None:
        counts = self._control.counts.deliveries
        counts[channel, outcome] = counts.get((channel, outcome), 0) + 1
