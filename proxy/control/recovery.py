"""Journals of former lives: found at start, read to their ends, their epochs closed."""

import logging
from pathlib import Path

from db.journal import JournalError, JournalReader, delete_journal, list_journals, lock_journal
from db.ledger import Ledger
from db.ledger_types import JournalState, Position
from db.writer import Writer

log = logging.getLogger(__name__)


class Recovery:
    """Journals whose worker may be dead wait here until their lock proves it (R1)."""

    def __init__(
        self, directory: Path, ledger: Ledger, writer: Writer, *, epoch_id: int, host_id: str
    ) -> None:
        self._directory = directory
        self._host_id = host_id
        self._ledger = ledger
        self._writer = writer
        self._epoch_id = epoch_id
        self._unsealed: dict[bytes, None] = {}  # in the order they came
        self._unclosed: set[int] = set()  # epochs of former lives that may still be closed

    @property
    def pending(self) -> int:
        """Journals whose writers may still live."""
        return len(self._unsealed)

    async def find(self) -> None:
        """Follow every journal of this host that is not finished; those of workers that still
        live are drained like any other, and finished once they end."""
        orphans = []
        for journal_id in list_journals(self._directory):
            state = await self._ledger.journal(journal_id)
            if state is None:
                orphans.append(journal_id)
            elif state.finished:
                self._writer.add_finished(journal_id)
            else:
                await self._open(journal_id, state)
        if orphans:
            await self._adopt(orphans)
        self._unclosed = {epoch_id for epoch_id, _ in await self._ledger.unclosed_epochs()}
        self._unclosed.discard(self._epoch_id)

    def mourn(self, journal_id: bytes) -> None:
        """A worker's connection is gone: finish its journal once its lock can be had."""
        self._unsealed[journal_id] = None

    def seal(self) -> None:
        """Take the locks of those that have died by now."""
        for journal_id in list(self._unsealed):
            lock = lock_journal(self._directory, journal_id)
            if lock is not None:
                del self._unsealed[journal_id]
                self._writer.seal(journal_id, lock)

    async def close_epochs(self) -> None:
        """Free the leases of former lives whose journals have all been read to their ends."""
        for epoch_id in sorted(self._unclosed):
            if await self._ledger.close_epoch(epoch_id):
                self._unclosed.discard(epoch_id)
                log.info("epoch %d is closed: what it did not spend is free", epoch_id)

    async def _open(self, journal_id: bytes, state: JournalState) -> None:
        try:
            self._writer.open(journal_id, state)
            host_id = self._written_on(journal_id, state.position)
            host_id = host_id or await self._ledger.host_of(state.epoch_id)
        except JournalError as exc:
            # Its rows cannot be had; its epoch stays open, so its money stays committed.
            log.error("cannot recover %s", exc)
            return
        if host_id == self._host_id:
            self._unsealed[journal_id] = None
        else:
            # Its writer may live, whatever the lock here says: it is drained, never finished (R5).
            log.warning("journal %s is a copy, of host %s", journal_id.hex(), host_id)

    def _written_on(self, journal_id: bytes, position: Position) -> str:
        """The host whose lock says whether a journal's writer lives; "": its file does not tell.
        Raises JournalError."""
        reader = JournalReader(self._directory, journal_id, *position)
        try:
            reader.read(1)
            return reader.identity.host_id if reader.identity is not None else ""
        finally:
            reader.close()

    async def _adopt(self, orphans: list[bytes]) -> None:
        """Journals the ledger does not know: the database was restored from a backup, or a
        worker died before it said hello. They get an epoch that leases nothing, so that whatever
        they charge is booked as unbacked and flagged."""
        epoch_id = 0
        for journal_id in orphans:
            if not self._has_records(journal_id):
                self._discard(journal_id)
                continue
            if not epoch_id:
                epoch_id = await self._ledger.register_epoch("")
            await self._ledger.register_journal(journal_id, epoch_id)
            await self._open(journal_id, JournalState(epoch_id, (0, 0), False, False))

    def _has_records(self, journal_id: bytes) -> bool:
        try:
            reader = JournalReader(self._directory, journal_id)
        except JournalError:
            return False
        try:
            return bool(reader.read())
        finally:
            reader.close()

    def _discard(self, journal_id: bytes) -> None:
        lock = lock_journal(self._directory, journal_id)
        if lock is not None:
            delete_journal(self._directory, journal_id, older_than_s=float("inf"))
            lock.release()
