"""Control: the one process of a host that owns its share of the ledger.

Everything that touches the database happens in one turn after the other: register new journals,
finish dead ones, drain, lease. Between the turns only memory moves: grants from the pools.
"""

import asyncio
import contextlib
import logging
from pathlib import Path

from msgspec.structs import replace

from db.dead_letters import DeadLetters
from db.errors import reason
from db.ledger_types import LedgerError
from db.notifications import CATALOG, TICKETS, Listener
from db.price_versions import store_version
from db.raises import read_mark
from db.threads import Threads
from db.transactions import is_retryable
from pricing.table import TABLES_DIR
from proxy.config import Config
from proxy.control import chores, snapshots
from proxy.control.clock import Clock, Due
from proxy.control.counts import Counts
from proxy.control.export import open_export
from proxy.control.opening import OpenLedger, Parts, declare, open_ledger, open_parts
from proxy.control.prices import Prices
from proxy.control.refusals import Refusals
from proxy.control.session import Session
from proxy.wire import Ask, Channel, Meet, PricesEntry, Slices, Snapshot, Status, Unwant, Want

log = logging.getLogger(__name__)

REVISION_S = 0.5  # the catalog's revision is looked at this often: changes are out in a second
TICKETS_S = 0.5  # and who waits for money on other hosts
PRICES_S = 5.0  # the tables are looked at this often: a new one, or a new day, is soon in force
EPOCHS_S = 1.0  # epochs of former lives are closed this soon after their last journal ended
SEEN_S = 5.0  # the epoch shows this often that it lives
DISK_S = 5.0
NOTIFIED = {CATALOG: ("revision",), TICKETS: ("tickets",)}  # what is due then; else both
SLOW_TURN_S = 5.0  # a turn that takes longer is an outage to those who wait for it
OUTAGE_WAIT_S_MAX = 2.0
STOP_SLACK_S = 5.0  # beyond `drain_s`, for workers that do not go
FINAL_TURNS = 50
FINAL_S = 10.0


class Control:
    """`start`, `connect` workers, `stop`. Once `fatal` is set it must be stopped, and started anew
    with a new epoch."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        *,
        tables: Path = TABLES_DIR,
        ledger_nice: int = 0,
        open_ledger: OpenLedger = open_ledger,
    ) -> None:
        self.config = config
        self.clock = clock
        self.fatal = asyncio.Event()
        self.snapshot: Snapshot | None = None
        self.parts: Parts | None = None
        self.counts = Counts()
        self.refusals = Refusals()
        self._export = open_export(config.telemetry)
        self._prices = Prices(tables)
        self.ledger_nice = ledger_nice
        self._threads = Threads(ledger_nice)
        self._open_ledger = open_ledger
        self._selected: PricesEntry | None = None
        self._dead_letters = DeadLetters(Path(config.journal.dir))
        self._sessions: dict[Session, None] = {}  # in the order they came
        self._early: list[Channel] = []  # connected before the ledger was open
        self._joining: list[Session] = []  # their journals are not registered yet
        self._turn_lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._stopping = False
        self._failures = 0  # turns in a row that failed
        self._catalog_mark = (-1, 0, 0)
        self._due = Due(clock)

    @property
    def ready(self) -> bool:
        return self.snapshot is not None

    @property
    def in_force(self) -> int:
        """The newest snapshot that every worker has acknowledged; 0: there is no worker yet."""
        return max(min((s.acked for s in self._sessions if s.journal_id), default=0), 0)

    @property
    def workers(self) -> list[dict[str, int]]:
        return [{"pid": s.pid, "revision": s.acked} for s in self._sessions if s.journal_id]

    @property
    def dead_letters(self) -> int:
        return self._dead_letters.count

    @property
    def outage(self) -> bool:
        return self._failures > 0

    # --- life

    async def start(self) -> None:
        """Open the ledger, recover what former lives left, and begin to serve workers. Raises
        JournalError, DatabaseError and PricingError."""
        self._selected = self._prices.select(self.config.pricing, self.clock.now_ms())
        self.parts = await open_parts(
            self.config,
            self._prices,
            self._selected.version,
            self._dead_letters,
            self.clock.now_ms,
            self._threads,
            self.clock.monotonic,
            self._open_ledger,
        )
        await self._refresh(self.parts)
        for channel in self._early:
            self._welcome(self.parts, channel)
        self._early.clear()
        if self.parts.transactions.dialect == "postgresql":
            self._listener = Listener(self.config.database.url, self._on_notification)
            self._listener.start()
        self._loop_task = asyncio.create_task(self._loop())

    def connect(self, channel: Channel) -> None:
        """A worker. It is welcomed as soon as the ledger is open."""
        if self.parts is None:
            self._early.append(channel)
        else:
            self._welcome(self.parts, channel)

    async def reload(self, config: Config) -> None:
        """Put a new configuration in force, all but what needs a restart. Raises PricingError,
        DatabaseError and what the database raises; then the old one stays in force."""
        assert self.parts is not None
        kept = {name: getattr(self.config, name) for name in ("database", "journal", "telemetry")}
        async with self._turn_lock:
            now_ms = self.clock.now_ms()
            selected = self._prices.select(config.pricing, now_ms)
            stored = self._prices.stored(selected.version)
            await self.parts.transactions.run(declare(config, stored, now_ms))
            self._selected, self.config = selected, replace(config, **kept)
            await self._refresh(self.parts)

    async def flush(self) -> None:
        """Everything that can be done now: journals of the dead are finished, all journals
        drained, money leased and granted. Raises what the database raises."""
        assert self.parts is not None
        async with self._turn_lock:
            await self._join(self.parts)
            self.parts.recovery.seal()
            await self.parts.writer.flush()
            await self.parts.recovery.close_epochs()
            await self.parts.objects.step(at_once=True)
            await self.parts.leases.step()
            self._due["refusals"] = 0.0
            await chores.count_refusals(self.parts, self.refusals, self._due, self.clock.now_ms())

    async def stop(self) -> None:
        """Drain the workers, commit the rest, return the money, close the epoch."""
        for channel in self._early:  # the ledger was never opened: nothing to wait for
            channel.close()
        self._early.clear()
        if self.parts is None:
            return
        for session in self._sessions:
            session.drain()
        if self._sessions:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.server.drain_s + STOP_SLACK_S):
                    await self._all_gone.wait()
        self._stopping = self._threads.hurry = True
        self._wake.set()
        for session in list(self._sessions):
            session.close()
        if self._listener is not None:
            await self._listener.close()
        await self._finish(self.parts)
        await self.parts.close()
        await self._export.close()
        self.parts = None

    async def _finish(self, parts: Parts) -> None:
        """Whatever cannot be done now is done by the next control's recovery."""
        try:
            async with asyncio.timeout(FINAL_S):
                if self._loop_task is not None:
                    await self._loop_task
                for _ in range(FINAL_TURNS):
                    await self.flush()
                    if not self._joining and not parts.writer.journals:
                        break
                if not await parts.ledger.close_epoch(parts.epoch_id):
                    await parts.leases.give_back()
        except Exception as exc:
            why = "no answer" if isinstance(exc, TimeoutError) else reason(exc)
            log.warning("could not commit everything before stopping: %s", why)

    # --- turns

    async def _loop(self) -> None:
        while not self._stopping:
            await self._turn()
            await self._pause()

    async def _pause(self) -> None:
        """Until the next flush is due, or somebody waits for a turn."""
        delay = self.config.journal.flush_interval_ms / 1000
        if self._failures:
            delay = min(delay * 2 ** min(self._failures, 10), OUTAGE_WAIT_S_MAX)
            self._wake.clear()  # nobody waits for a ledger that is out of reach
        timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    async def _turn(self) -> None:
        parts = self.parts
        assert parts is not None
        loop = asyncio.get_running_loop()
        if self._due.now("disk", DISK_S):
            chores.tidy_disk(parts, self.config.journal, self.clock.now_ms())
        slow = loop.call_later(SLOW_TURN_S, parts.leases.set_outage, True)
        try:
            async with self._turn_lock:
                await self._work(parts)
        except LedgerError as exc:
            log.critical("%s: control must start anew", exc)
            self.fatal.set()
            self._stopping = True
            parts.leases.set_outage(True)
        except Exception as exc:
            self._failed(parts, exc)
        else:
            if self._failures:
                log.warning("the ledger is back after %d attempts", self._failures)
            self._failures = 0
            if parts.leases.outage:
                parts.leases.set_outage(False)
        finally:
            slow.cancel()

    def _failed(self, parts: Parts, exc: Exception) -> None:
        """An outage of whatever kind: go on, keep trying, and tell whoever waits."""
        self._failures += 1
        if self._failures == 1:
            trace = not is_retryable(exc)
            log.error("the ledger is out of reach: %s", reason(exc), exc_info=trace)
        for session in self._joining:
            self._send_snapshot(session)
            session.send(Slices([], [], [], outage=True))
        parts.fail()

    async def _work(self, parts: Parts) -> None:
        if self._failures:  # a turn that finds nothing to do would prove nothing
            await chores.show_life(parts, self.clock.now_ms())
        chores.set_pace(parts)
        await self._join(parts)
        if self._due.now("flush", self.config.journal.flush_interval_ms / 1000):
            parts.recovery.seal()
            parts.leases.interval()
            if await parts.writer.flush(rounds=1):  # there is more: go on at once
                self._due["flush"] = 0.0
                self._wake.set()
        await parts.objects.step()
        await parts.customers.step()
        if self._due.now("tickets", TICKETS_S):
            await parts.leases.look()
        await parts.leases.step()
        if self._due.now("epochs", EPOCHS_S):
            await parts.recovery.close_epochs()
        if self._due.now("revision", REVISION_S) and await self._has_changed(parts):
            await self._refresh(parts)
        if self._due.now("prices", PRICES_S):
            await self._look_for_prices(parts)
        if self._due.now("seen", SEEN_S):
            await chores.show_life(parts, self.clock.now_ms())
        await chores.keep_house(parts, self._due, self.clock.now_ms())
        await chores.count_refusals(parts, self.refusals, self._due, self.clock.now_ms())

    # --- snapshots

    async def _has_changed(self, parts: Parts) -> bool:
        return await parts.transactions.run(read_mark) != self._catalog_mark

    def _on_notification(self, what: str) -> None:
        """Another host says that there is something to look at."""
        self._due.update(dict.fromkeys(NOTIFIED.get(what, ("revision", "tickets")), 0.0))
        self._wake.set()

    async def _look_for_prices(self, parts: Parts) -> None:
        selected = self._prices.look(self.config.pricing, now_ms := self.clock.now_ms())
        if selected is None or selected == self._selected:
            return
        stored = self._prices.stored(selected.version)
        await parts.transactions.run(lambda connection: store_version(connection, stored, now_ms))
        self._selected = selected
        await self._refresh(parts)
        log.info("prices in force: %s", selected.version)

    async def _refresh(self, parts: Parts) -> None:
        assert self._selected is not None
        mark = await parts.transactions.run(read_mark)
        catalog = await parts.transactions.run(parts.customers.load_catalog)
        number = self.snapshot.revision + 1 if self.snapshot is not None else 1
        self.snapshot = snapshots.build(
            number, parts.epoch_id, catalog, self._selected, self.config
        )
        self._catalog_mark = mark
        wait_ms = snapshots.longest_wait_ms(self.snapshot)
        parts.leases.set_limits(snapshots.limits(self.snapshot), wait_ms)
        for session in self._sessions:
            if session.journal_id:
                self._send_snapshot(session)

    def _send_snapshot(self, session: Session) -> None:
        if self.snapshot is not None and session.sent < self.snapshot.revision:
            session.sent = self.snapshot.revision
            session.send(self.snapshot)

    # --- workers

    def _welcome(self, parts: Parts, channel: Channel) -> None:
        session = Session(channel, self)
        self._sessions[session] = None
        self._all_gone.clear()
        session.start(parts.welcome)

    async def _join(self, parts: Parts) -> None:
        """Register new journals: before their workers get a slice."""
        for session in list(self._joining):
            await parts.ledger.register_journal(session.journal_id, parts.epoch_id)
            self._joining.remove(session)
            if chores.follow(parts, session):
                self._send_snapshot(session)

    def on_hello(self, session: Session) -> None:
        self._joining.append(session)
        self._wake.set()

    def on_status(self, session: Session, status: Status) -> None:
        assert self.parts is not None
        leases = self.parts.leases
        if leases.on_status(session.journal_id, status):
            self._wake.set()
        self._export.add(status.calls)
        self.refusals.add(status.refused, status.refused_groups)
        if status.metrics:
            self.counts.update(session.journal_id, status.metrics)
        if leases.waiting:
            leases.grant()

    def on_want(self, session: Session, want: Want) -> None:
        assert self.parts is not None
        if session in self._joining:  # it serves already: an outage keeps it from being registered
            session.send(Slices([], [], [want.call_id], outage=True))
            return
        leases = self.parts.leases
        leases.on_want(session.journal_id, want)
        if leases.outage:
            leases.set_outage(True)
        elif leases.grant():
            self._wake.set()

    def on_unwant(self, session: Session, unwant: Unwant) -> None:
        assert self.parts is not None
        self.parts.leases.on_unwant(session.journal_id, unwant)

    def on_ask(self, session: Session, ask: Ask | Meet) -> None:
        assert self.parts is not None
        chores.take_question(self.parts, session, ask)
        self._due["flush"] = 0.0  # the answer may be in a journal
        self._wake.set()

    def on_gone(self, session: Session) -> None:
        self._sessions.pop(session, None)
        self.counts.bury(session.journal_id)
        if not self._sessions:
            self._all_gone.set()
        if self.parts is None:
            return
        if session.journal_id and session not in self._joining:
            self.parts.leases.detach(session.journal_id)
            self.parts.recovery.mourn(session.journal_id)
        self._wake.set()
