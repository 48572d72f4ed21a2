"""The journal's reader: follows a live journal, and reads a dead one to its end.

Reading starts at the beginning of the segment that holds the committed offset (rule 8): what
comes before the offset only rebuilds the set of open holds.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from struct import Struct as Layout
from typing import Any, NamedTuple

import msgspec
from google_crc32c import extend as extend_crc

from db.journal_files import (
    CHECKED_BYTES,
    HEADER_BYTES,
    HEADER_FORMAT,
    JournalError,
    seed,
    segment_path,
    segments,
    sync_directory,
)
from db.journal_records import (
    DECODERS,
    TYPE_BYTES,
    TYPES,
    Close,
    Hold,
    Record,
    Segment,
    Settle,
)
from db.pauses import pause

_header = Layout(HEADER_FORMAT).unpack_from
_checked = Layout("<IQB").pack
_HOLD = TYPE_BYTES[Hold]
_OF_CALLS: dict[int, Callable[[bytes], Any]] = {
    kind: DECODERS[kind - 1] for kind in (_HOLD, TYPE_BYTES[Settle])
}
# A header of one of the next 2^32 records: the high half of a sequence number, then a type.
_CANDIDATE = b"(?s)(?=.{8}%b[\x01-\x05])"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record behind the committed offset. Committing `(segment, end)` consumes it."""

    record: Record
    segment: int
    end: int
    hold: Hold | None = None  # of a Settle: the hold it ends; None: that record was damaged
    # Holds whose settlement is known to be lost in a damaged range: to be charged in full.
    lost: tuple[Hold, ...] = ()


class Damage(NamedTuple):
    """A range of a segment that could not be read."""

    journal_id: bytes
    segment: int
    start: int
    end: int
    data: bytes
    reason: str


class JournalReader:
    """Reads one journal. `sealed` is set by whoever holds its lock: it cannot grow any more."""

    def __init__(
        self,
        directory: str | Path,
        journal_id: bytes,
        segment: int = 0,
        offset: int = 0,
        *,
        on_damage: Callable[[Damage], None] = lambda damage: None,
    ) -> None:
        """Raises JournalError if neither this segment nor a later one is there."""
        self.journal_id = journal_id
        self.open_holds: dict[bytes, Hold] = {}
        self.position = (segment, offset)  # end of the last record that was read
        self.identity: Segment | None = None  # the opening of the newest segment seen
        self.closed = False  # a CLOSE was read: the worker ended cleanly
        self.truncated = False  # something is missing: the journal's lease must not be freed
        self.sealed = False
        self.exhausted = False  # sealed, and read to the end
        self.caught_up = False  # the last `read` stopped where the journal ends, for now
        self._directory = Path(directory)
        self._on_damage = on_damage
        self._committed = (segment, offset)
        self._expected = 0  # sequence number of the next record; 0: any
        self._leftover: Damage | None = None  # an incomplete tail, forgiven if nothing is missing
        self._unsynced: list[int] = []  # descriptors of finished segments
        self._names_synced = -1  # highest segment whose name is known to be on disk
        self._fd, self._number, self._seed = -1, -1, 0
        self._buffer, self._start = b"", 0  # bytes not understood yet, and their offset
        number = next((n for n in segments(self._directory, journal_id) if n >= segment), None)
        if number is None:
            raise JournalError(f"journal {journal_id.hex()}: no segment {segment} or later")
        self._open(number)
        if number > segment:  # a database restored from a backup that is too old
            self._damaged(0, 0, f"segments {segment} to {number - 1} are missing")
            self.position = (number, 0)

    def read(self, max_bytes: int = 2**20) -> list[Entry]:
        """The next records, about `max_bytes` of them; empty: nothing more at the moment."""
        entries: list[Entry] = []
        self.caught_up = False
        while (max_bytes > 0 or not entries) and not self.exhausted:
            successor = self._successor()  # looked for first: nothing is appended once it is there
            data = os.pread(self._fd, max(max_bytes, 2**16), self._start + len(self._buffer))
            if data:
                max_bytes -= len(data)
                self._buffer += data
                self._parse(entries)
            elif successor is not None:
                self._follow(successor)
            else:
                if self.sealed:
                    self._end()
                self.caught_up = True
                break
        return entries

    def sync(self) -> None:
        """Put on disk what was read so far, file names included (rule 6)."""
        while self._unsynced:
            os.fdatasync(self._unsynced[-1])
            os.close(self._unsynced.pop())
        os.fdatasync(self._fd)
        if self._names_synced < self._number:
            sync_directory(self._directory)
            self._names_synced = self._number

    def close(self) -> None:
        for fd in (*self._unsynced, self._fd):
            if fd >= 0:
                os.close(fd)
        self._unsynced, self._fd = [], -1

    # --- records

    def _parse(self, entries: list[Entry]) -> None:
        at = 0
        while True:
            at = self._run(at, entries)
            start, frame = at, self._frame(at)
            if frame is None:
                start, frame = self._resync(at)
            if frame is None:
                break
            record, sequence, end = frame
            if start > at or sequence != self._expected:
                self._gap(at, start, sequence)
            self._leftover = None
            self._expected = sequence + 1
            self.position = (self._number, self._start + end)
            self._take(record, entries)
            at = end
        self._buffer = self._buffer[at:]
        self._start += at

    def _run(self, at: int, entries: list[Entry]) -> int:
        """Take holds and settlements as long as they follow one another without a flaw: what
        `_frame` and `_take` do, in the inner loop of the drain. Returns where it stopped."""
        buffer, size, expected, crc_seed = (
            self._buffer, len(self._buffer), self._expected, self._seed,
        )  # fmt: skip
        number, base, holds = self._number, self._start, self.open_holds
        after = self._committed[1] if self._committed[0] == number else -1
        begin, start = at, at + HEADER_BYTES
        while start <= size and expected:
            pause()
            length, sequence, kind, crc = _header(buffer, at)
            end = start + length
            decode = _OF_CALLS.get(kind)
            if end > size or sequence != expected or decode is None:
                break
            payload = buffer[start:end]
            if extend_crc(extend_crc(crc_seed, buffer[at : at + CHECKED_BYTES]), payload) != crc:
                break
            try:
                record = decode(payload)
            except msgspec.MsgspecError:
                break
            if kind == _HOLD:
                holds[record.call_id], hold = record, None
            else:
                hold = holds.pop(record.call_id, None)
            if base + end > after:
                entries.append(Entry(record, number, base + end, hold))
            expected, at, start = expected + 1, end, end + HEADER_BYTES
        if at > begin:
            self._expected, self.position, self._leftover = expected, (number, base + at), None
        return at

    def _frame(self, at: int) -> tuple[Record, int, int] | None:
        """The valid record at a place in the buffer, its sequence number, and where it ends."""
        buffer = self._buffer
        start = at + HEADER_BYTES
        if start > len(buffer):
            return None
        length, sequence, kind, crc = _header(buffer, at)
        end = start + length
        if end > len(buffer) or not 1 <= kind <= len(TYPES) or sequence < self._expected:
            return None
        payload = buffer[start:end]
        if extend_crc(extend_crc(self._seed, buffer[at : at + CHECKED_BYTES]), payload) != crc:
            return None
        try:
            return DECODERS[kind - 1](payload), sequence, end
        except msgspec.MsgspecError:  # whole, but not a record we know
            return None

    def _resync(self, at: int) -> tuple[int, tuple[Record, int, int] | None]:
        """The next valid record behind a bad one, and where it begins."""
        high = (self._expected >> 32).to_bytes(4, "little")
        for match in re.finditer(_CANDIDATE % re.escape(high), self._buffer[at + 1 :]):
            start = at + 1 + match.start()
            frame = self._frame(start)
            if frame is not None:
                return start, frame
        return at, None

    def _take(self, record: Record, entries: list[Entry]) -> None:
        hold: Hold | None = None
        lost: tuple[Hold, ...] = ()
        if isinstance(record, Settle):
            hold = self.open_holds.pop(record.call_id, None)
        elif isinstance(record, Hold):
            self.open_holds[record.call_id] = record
        elif isinstance(record, Segment):
            carried = {hold.call_id: hold for hold in record.open_holds}
            lost = tuple(h for call_id, h in self.open_holds.items() if call_id not in carried)
            self.open_holds, self.identity = carried, record
        elif isinstance(record, Close):
            self.closed = True
        if self.position > self._committed:
            entries.append(Entry(record, *self.position, hold, lost))

    # --- segments

    def _open(self, number: int) -> None:
        path = segment_path(self._directory, self.journal_id, number)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._number, self._seed = number, seed(self.journal_id, number)
        self._buffer, self._start = b"", 0

    def _successor(self) -> int | None:
        number = self._number + 1
        if segment_path(self._directory, self.journal_id, number).exists():
            return number
        if not self.sealed:
            return None
        return next((n for n in segments(self._directory, self.journal_id) if n > number), None)

    def _follow(self, number: int) -> None:
        """Go on to the next segment. An incomplete tail is what a full disk left: the record was
        written again to the new segment, unless sequence numbers there tell otherwise."""
        if self._buffer:
            self._leftover = self._range(0, len(self._buffer), "incomplete record")
        self._unsynced.append(self._fd)
        self._open(number)

    def _end(self) -> None:
        if self._leftover is not None:
            self._report(self._leftover)
        if self._buffer and not self._is_torn():
            self._damaged(0, len(self._buffer), "unreadable at the end")
        self.exhausted = True

    def _is_torn(self) -> bool:
        """Whether the last bytes can be the beginning of one record whose write was cut."""
        if len(self._buffer) < HEADER_BYTES:
            return True
        length, sequence, kind, crc = _header(self._buffer)
        rest = self._buffer[HEADER_BYTES:]
        if (
            self._expected not in (0, sequence)
            or not 1 <= kind <= len(TYPES)
            or length <= len(rest)
        ):
            return False
        # A whole record whose length field is damaged?
        whole = extend_crc(extend_crc(self._seed, _checked(len(rest), sequence, kind)), rest) == crc
        return not whole

    # --- damage

    def _gap(self, at: int, start: int, sequence: int) -> None:
        """Report what is missing in front of a valid record."""
        if not self._expected and start == at:
            return  # the first record of all: nothing is known of its predecessors
        if self._leftover is not None:
            self._report(self._leftover)
        if start > at or self._leftover is None:
            self._damaged(at, start, f"missing: records {self._expected} to {sequence - 1}")

    def _range(self, start: int, end: int, reason: str) -> Damage:
        data, base = self._buffer[start:end], self._start
        return Damage(self.journal_id, self._number, base + start, base + end, data, reason)

    def _damaged(self, start: int, end: int, reason: str) -> None:
        self._report(self._range(start, end, reason))

    def _report(self, damage: Damage) -> None:
        self.truncated = True
        if (damage.segment, damage.end) >= self._committed:
            self._on_damage(damage)
