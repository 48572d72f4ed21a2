"""Drains journals into the ledger: exactly once, in order, whatever fails in between.

What was read and not yet committed is kept and offered again, so an outage of any length costs
one batch of memory per journal and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from db.dead_letters import DeadLetters
from db.journal import Damage, JournalReader, Lock, delete_before, delete_journal
from db.journal_files import bytes_after, shrink, sync_after
from db.journal_records import Hold, Note, Settle, Window
from db.ledger import Ledger
from db.ledger_types import (
    Batch,
    Drained,
    JournalState,
    LeaseState,
    LedgerError,
    OutcomeUnknown,
    Position,
)
from db.threads import Threads
from db.transactions import is_retryable

T = TypeVar("T")

BATCH_BYTES = 256 * 2**10  # of journal, per journal and transaction
ATTEMPTS = 4
ROUNDS_MAX = 10**6
ALL_SEGMENTS = 2**32
WAIT_INITIAL_S = 0.02
WAIT_MAX_S = 0.5


class DatabaseRestored(LedgerError):
    """The database is older than what this process committed to it: start anew."""


class Flush(NamedTuple):
    """One committed batch, as the holder of the leases needs to know it."""

    journal_id: bytes
    epoch_id: int
    consumed: dict[Window, int]  # taken off the worker's slices: charges, at most their holds
    leases: dict[Window, LeaseState]  # of the epoch, where they changed
    finished: bool
    ready: int = 0  # open calls that may be settled now


@dataclass(slots=True)
class Counters:
    rows: int = 0
    duplicates: int = 0
    dead: int = 0
    unbacked: int = 0
    retries: int = 0


@dataclass(slots=True)
class _Journal:
    reader: JournalReader
    epoch_id: int
    committed: Position
    lock: Lock | None = None
    pending: Batch | None = None
    consumed: dict[Window, int] = field(default_factory=dict)  # of the pending batch
    letters: list[Damage | Settle] = field(default_factory=list)  # to be written before it


class Writer:
    """Not for concurrent use: control's loop calls one method at a time."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        dead_letters: DeadLetters,
        *,
        boot_id: str,
        always_synced: bool,
        threads: Threads | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.counters = Counters()
        self.on_flush: Callable[[Flush], None] = lambda flush: None
        self._directory = directory
        self._ledger = ledger
        self._dead_letters = dead_letters
        self._boot_id = boot_id
        self._always_synced = always_synced  # `sync: always`: a power cut takes nothing
        self._threads = threads or Threads()
        self._sleep = sleep
        self._batch_bytes = batch_bytes
        self._journals: dict[bytes, _Journal] = {}
        self._finished: set[bytes] = set()  # to be deleted once old enough

    def backlog_bytes(self) -> int:
        """Of journals, not in the ledger yet."""
        return sum(
            bytes_after(self._directory, journal_id, journal.committed)
            for journal_id, journal in self._journals.items()
        )

    def open(self, journal_id: bytes, state: JournalState) -> None:
        """Follow a journal from where the ledger says it was drained to. Raises JournalError."""
        letters: list[Damage | Settle] = []
        reader = JournalReader(
            self._directory, journal_id, *state.position, on_damage=letters.append
        )
        journal = _Journal(reader, state.epoch_id, state.position, letters=letters)
        self._journals[journal_id] = journal

    def add_finished(self, journal_id: bytes) -> None:
        """A journal finished in an earlier life: only kept for a while."""
        self._finished.add(journal_id)

    def seal(self, journal_id: bytes, lock: Lock) -> None:
        """The journal's lock is ours: it cannot grow, and is finished once read to its end."""
        journal = self._journals[journal_id]
        journal.lock = lock
        journal.reader.sealed = True

    @property
    def journals(self) -> list[bytes]:
        """Those that are open."""
        return list(self._journals)

    # --- draining

    async def flush(self, *, rounds: int = ROUNDS_MAX) -> bool:
        """Commit what can be read now, one batch per journal and round, telling `on_flush` of
        each. True: there is more. Raises what the database keeps raising after a few
        attempts; what was not committed stays pending. Raises DatabaseRestored."""
        for number in range(rounds):
            if not await self._threads.run(self._read):
                if number == 0:
                    self._threads.rested()
                return False
            await self._commit()
        return any(j.pending or not j.reader.caught_up for j in self._journals.values())

    async def sync(self) -> None:
        """Put on disk all there is of the journals: before money leaves the host (rule 6)."""
        await self._threads.run(self._sync_unread)

    def _sync_unread(self) -> None:
        self._sync(self._journals.values())
        for journal_id, journal in self._journals.items():
            sync_after(self._directory, journal_id, journal.reader.position[0])

    def _read(self) -> bool:
        """Fill the pending batches. False: there is nothing to commit."""
        for journal in self._journals.values():
            if journal.pending is None:
                self._read_journal(journal)
        return any(journal.pending for journal in self._journals.values())

    def _read_journal(self, journal: _Journal) -> None:
        reader = journal.reader
        settled: list[tuple[Hold, Settle]] = []
        lost: list[Hold] = []
        notes: list[Note] = []
        while True:
            before = reader.position
            for entry in reader.read(self._batch_bytes):
                lost += entry.lost
                if isinstance(entry.record, Settle):
                    if entry.hold is None:
                        journal.letters.append(entry.record)
                    else:
                        settled.append((entry.hold, entry.record))
                elif isinstance(entry.record, Note):
                    notes.append(entry.record)
            finish = reader.exhausted
            if finish or reader.position > journal.committed:
                break
            if reader.position == before:
                return
            # else: still in front of the committed offset, where only holds are collected
        if finish:
            lost += reader.open_holds.values()
        journal.pending = Batch(
            journal_id=reader.journal_id,
            epoch_id=journal.epoch_id,
            start=journal.committed,
            end=reader.position,
            settled=settled,
            lost=lost,
            notes=notes,
            finish=finish,
            truncated=reader.truncated or (finish and self._may_lack_tail(reader)),
        )
        journal.consumed = _consumed(settled, lost)

    def _may_lack_tail(self, reader: JournalReader) -> bool:
        """A power cut may have taken what was not synced (R7)."""
        if reader.closed or self._always_synced:
            return False
        return reader.identity is None or reader.identity.boot_id != self._boot_id

    async def _commit(self) -> None:
        journals = [journal for journal in self._journals.values() if journal.pending]
        await self.retry(lambda: self._threads.run(lambda: self._sync(journals)))
        try:
            await self.retry(lambda: self._commit_together(journals))
        except LedgerError:
            raise
        except Exception:
            if len(journals) == 1:
                raise
            await self._commit_apart(journals)

    async def _commit_apart(self, journals: list[_Journal]) -> None:
        """One of them cannot be committed: it must not stop the others."""
        failures = []
        for journal in journals:
            try:
                await self._commit_together([journal])
            except Exception as exc:
                failures.append(exc)
        if failures:
            raise failures[0]

    async def _commit_together(self, journals: list[_Journal]) -> None:
        """Raises OutcomeUnknown when it is known by now that nothing was committed."""
        open_ = [(journal, journal.pending) for journal in journals if journal.pending is not None]
        batches = [batch for _, batch in open_]
        unknown: OutcomeUnknown | None = None
        try:
            results = await self._ledger.drain(batches)
        except OutcomeUnknown as exc:
            unknown = exc
            results = [await self._learn(batch) for batch in batches]
        for (journal, _), result in zip(open_, results, strict=True):
            if result.moved is None or self._passed(journal, result):
                await self._done(journal, result)
        if unknown is not None and any(journal.pending for journal, _ in open_):
            raise unknown

    async def _learn(self, batch: Batch) -> Drained:
        """Whether a commit of unknown outcome took place: read under the row's lock (R4)."""
        state = await self.retry(lambda: self._ledger.journal(batch.journal_id))
        if state is None:
            raise DatabaseRestored(f"journal {batch.journal_id.hex()} is not registered any more")
        return Drained(moved=state.position, finished=state.finished)

    def _passed(self, journal: _Journal, result: Drained) -> bool:
        """The offset is not where the batch starts. True: the batch is committed, by an attempt
        of ours or by somebody who drained a copy. False: offer what is left of it again."""
        batch, moved = journal.pending, result.moved
        assert batch is not None
        assert moved is not None
        if result.finished or (moved >= batch.end and not batch.finish):
            return True
        if moved < batch.start:
            raise DatabaseRestored(f"journal {batch.journal_id.hex()} was drained further before")
        # Rows that are there already move no money again.
        journal.pending = msgspec.structs.replace(batch, start=moved, end=max(moved, batch.end))
        return False

    async def _done(self, journal: _Journal, result: Drained) -> None:
        batch = journal.pending
        assert batch is not None
        leases = result.leases
        if result.moved is not None:  # what the ledger did is not known: read it
            leases = await self.retry(lambda: self._ledger.leases(batch.epoch_id))
        journal.pending = None
        journal.committed = batch.end if result.moved is None else max(batch.end, result.moved)
        self._count(result)
        if batch.finish:
            self._forget(batch.journal_id)
            self._finished.add(batch.journal_id)
        self.on_flush(
            Flush(
                batch.journal_id,
                batch.epoch_id,
                journal.consumed,
                leases,
                batch.finish,
                result.ready if result.moved is None else 1,
            )
        )

    def _sync(self, journals: Iterable[_Journal]) -> None:
        for journal in journals:
            journal.reader.sync()
            while journal.letters:
                self._dead_letters.write(journal.letters[0])
                del journal.letters[0]

    def _count(self, result: Drained) -> None:
        self.counters.rows += result.rows
        self.counters.duplicates += result.duplicates
        self.counters.dead += result.dead
        self.counters.unbacked += result.unbacked

    def _forget(self, journal_id: bytes) -> None:
        journal = self._journals.pop(journal_id)
        journal.reader.close()
        if journal.lock is not None:
            journal.lock.release()

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """A few attempts at something that outages and conflicts may keep from succeeding."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(is_retryable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(initial=WAIT_INITIAL_S, max=WAIT_MAX_S),
            sleep=self._sleep,
            reraise=True,
            after=self._count_retry,
        )

        async def tried() -> T:  # tenacity awaits what it recognises as a coroutine function
            return await attempt()

        return await retrying(tried)

    def _count_retry(self, _state: object) -> None:
        self.counters.retries += 1

    # --- housekeeping

    def tidy(self, *, older_than_s: float, bytes_max: int) -> bool:
        """Delete what is old enough, and before its time what is too much. True: what the ledger
        has not passed alone takes more than `bytes_max`."""
        self.delete_old(older_than_s)
        passed = dict.fromkeys(self._finished, ALL_SEGMENTS)
        passed |= {id_: journal.committed[0] for id_, journal in self._journals.items()}
        return shrink(self._directory, passed, bytes_max) > bytes_max

    def delete_old(self, older_than_s: float) -> None:
        """Delete what a synced commit has passed, once it is old enough (rule 7)."""
        for journal_id, journal in self._journals.items():
            segment = journal.committed[0]
            delete_before(self._directory, journal_id, segment, older_than_s=older_than_s)
        for journal_id in list(self._finished):
            if delete_journal(self._directory, journal_id, older_than_s=older_than_s):
                self._finished.discard(journal_id)

    def close(self) -> None:
        for journal_id in list(self._journals):
            self._forget(journal_id)


def _consumed(settled: list[tuple[Hold, Settle]], lost: list[Hold]) -> dict[Window, int]:
    consumed: dict[Window, int] = {}
    for hold, settle in settled:
        if hold.backed:
            for (window, amount), (_, held) in zip(settle.charges, settle.held, strict=True):
                taken = amount if amount < held else held
                consumed[window] = consumed.get(window, 0) + taken
    for hold in lost:
        if hold.backed:
            for window, amount in hold.amounts:
                consumed[window] = consumed.get(window, 0) + amount
    return consumed
