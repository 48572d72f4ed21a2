"""A worker without HTTP: a journal, a channel, and holds and settlements by hand."""

import os
import time

from db.journal import JournalWriter
from db.journal_records import Amounts, Hold, Settle, Window
from proxy.wire import (
    Ack,
    Channel,
    Drain,
    Hello,
    Message,
    Room,
    Slices,
    SliceStatus,
    Snapshot,
    Status,
    Unwant,
    Want,
    Welcome,
)


class FakeWorker:
    """Does what the protocol asks of a worker and remembers what it was told."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.journal: JournalWriter | None = None
        self.snapshots: list[Snapshot] = []
        self.messages: list[Message] = []
        self.granted: dict[Window, int] = {}
        self.returned: dict[Window, int] = {}
        self.used: dict[Window, int] = {}
        self.held: dict[Window, int] = {}
        self.wants: dict[bytes, Want] = {}
        self.closed = False
        channel.start(self._on_message, self._on_close)

    def told(self) -> Slices:
        """Of money, the last time; nothing yet is no trouble."""
        found = (each for each in reversed(self.messages) if isinstance(each, Slices))
        return next(found, Slices([], [], []))

    def _on_close(self) -> None:
        self.closed = True

    def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        if isinstance(message, Welcome):
            self.journal = JournalWriter.create(
                message.journal_dir,
                epoch_id=message.epoch_id,
                host_id=message.host_id,
                boot_id=message.boot_id,
                segment_bytes=message.segment_bytes,
                sync=message.journal_sync,
            )
            self.channel.send(Hello(self.journal.journal_id, os.getpid()))
        elif isinstance(message, Snapshot):
            self.snapshots.append(message)
            self.channel.send(Ack(message.revision))
        elif isinstance(message, Slices):
            for window, total in message.granted:
                self.granted[window] = max(total, self.granted.get(window, 0))
            self._make_room(message.room)
        elif isinstance(message, Drain):
            self.end()

    def _make_room(self, rooms: list[Room]) -> None:
        """Near the end of a window only the worker of the oldest call keeps free money. A call
        that has all it needs is as good as admitted."""
        first = next(iter(self.wants.values()), None)
        if first is not None and all(self.free(window) >= need for window, need in first.amounts):
            return
        scarce = [room.window for room in rooms if room.scarce and room.oldest not in self.wants]
        lost = [window for window in scarce if self.free(window)]
        for window in lost:
            self.give_back(window)
        if lost:
            self.report()
            if first is not None:
                self._ask(first)

    def _ask(self, want: Want) -> None:
        lacking = [(window, max(0, need - self.free(window))) for window, need in want.amounts]
        self.channel.send(Want(want.call_id, lacking, want.deadline_ms))

    # --- calls

    def free(self, window: Window) -> int:
        taken = (self.returned, self.used, self.held)
        return self.granted.get(window, 0) - sum(part.get(window, 0) for part in taken)

    def want(self, amounts: Amounts, wait_ms: int = 2000) -> bytes:
        """A call that needs these amounts; asks for what is lacking."""
        call_id = os.urandom(16)
        want = Want(call_id, list(amounts), time.time_ns() // 10**6 + wait_ms)
        self.wants[call_id] = want
        self._ask(want)
        return call_id

    def hold(self, hold: Hold) -> None:
        """The first call that waits, if any, is admitted."""
        if self.wants:
            call_id = next(iter(self.wants))
            del self.wants[call_id]
            self.channel.send(Unwant(call_id))
        assert self.journal is not None
        for window, amount in hold.amounts:
            assert self.free(window) >= amount
            self.held[window] = self.held.get(window, 0) + amount
        self.journal.append_hold(hold)

    def settle(self, settle: Settle) -> None:
        assert self.journal is not None
        self.journal.append_settle(settle)
        for (window, held), (_, charge) in zip(settle.held, settle.charges, strict=True):
            self.held[window] -= held
            self.used[window] = self.used.get(window, 0) + min(charge, held)

    def give_back(self, window: Window) -> None:
        self.returned[window] = self.returned.get(window, 0) + self.free(window)

    def report(self) -> None:
        self.channel.send(
            Status(
                [
                    SliceStatus(
                        window,
                        self.returned.get(window, 0),
                        self.used.get(window, 0),
                        self.held.get(window, 0),
                        0,
                    )
                    for window in self.granted
                ]
            )
        )

    # --- ends

    def end(self) -> None:
        """A clean end: CLOSE in the journal, then the connection."""
        assert self.journal is not None
        self.journal.close()
        self.channel.close()

    def die(self) -> None:
        """As `kill -9`: the kernel closes what was open, nothing more is written."""
        journal = self.journal
        assert journal is not None
        os.close(journal._fd)
        journal._fd = -1
        journal._lock.release()
        self.channel.close()
