"""The journal's writer: every hold and settlement of one life of one worker (protocol section 5).

Nothing here is buffered: an append is one `write(2)`, so what returned survives `kill -9`.
"""

import contextlib
import fcntl
import os
import time
import uuid
from collections import deque
from pathlib import Path
from struct import Struct as Layout

from google_crc32c import extend as extend_crc

from db.journal_files import (
    CHECKED_BYTES,
    HEADER_BYTES,
    HEADER_FORMAT,
    JournalBroken,
    JournalError,
    JournalFull,
    JournalLocked,
    Lock,
    SystemCalls,
    delete_before,
    delete_journal,
    list_journals,
    lock_control,
    lock_journal,
    lock_path,
    refuse_remote,
    seed,
    segment_path,
    sync_directory,
)
from db.journal_reader import Damage, Entry, JournalReader
from db.journal_records import TYPE_BYTES, Close, Hold, Note, Record, Segment, Settle, encode

__all__ = [
    "Damage",
    "Entry",
    "JournalBroken",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalReader",
    "JournalWriter",
    "Lock",
    "delete_before",
    "delete_journal",
    "list_journals",
    "lock_control",
    "lock_journal",
]

SYNC_MODES = ("os", "batch", "always")
RESERVE_STEP = 2**20  # blocks are set aside in steps, so that most appends ask for none
CLOSE_BYTES = HEADER_BYTES + 16
SETTLE_BYTES = 4096  # a settlement is at most this plus its hold's amounts, twice
SEGMENT_RETRY_BYTES = 2**20  # after a rotation that failed, try again this much later

_checked = Layout("<IQB").pack
_header = Layout(HEADER_FORMAT).pack


class JournalWriter:
    """Appends records. Not thread-safe, except `sync`, which may run in another thread."""

    def __init__(
        self,
        directory: Path,
        identity: Segment,
        *,
        segment_bytes: int,
        sync: str,
        calls: SystemCalls,
        lock: Lock,
    ) -> None:
        assert sync in SYNC_MODES, sync
        self.journal_id = identity.journal_id
        self.broken = False
        self._directory = directory
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._sync_mode = sync
        self._calls = calls
        self._write = calls.write
        self._lock = lock
        self._sequence = 1
        self._holds: dict[bytes, tuple[Hold, int]] = {}  # open, with the bytes kept for each
        self._kept = CLOSE_BYTES  # bytes that may never be given to a hold
        # Descriptors of former segments, to be synced and closed; popped one by one, since `sync`
        # may run while a rotation appends.
        self._retired: deque[int] = deque()
        self._number, self._fd, self._position, self._allocated = -1, -1, 0, 0
        self._rotate_at = segment_bytes
        self._seed = 0

    @classmethod
    def create(
        cls,
        directory: str | Path,
        *,
        epoch_id: int,
        host_id: str,
        boot_id: str,
        segment_bytes: int = 64 * 2**20,
        sync: str = "os",
        calls: SystemCalls = SystemCalls(),  # noqa: B008 (immutable)
    ) -> "JournalWriter":
        """A fresh journal: locked before anybody can see it. Raises JournalError or OSError."""
        directory = Path(directory)
        refuse_remote(directory)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        identity = Segment(uuid.uuid4().bytes, epoch_id, boot_id, host_id, 0, [])
        lock = _create_lock(lock_path(directory, identity.journal_id))
        writer = cls(
            directory, identity, segment_bytes=segment_bytes, sync=sync, calls=calls, lock=lock
        )
        try:
            writer._open_segment()
        except BaseException:
            lock.path.unlink(missing_ok=True)
            lock.release()
            raise
        return writer

    @property
    def position(self) -> tuple[int, int]:
        """Segment and offset after the last record."""
        return self._number, self._position

    @property
    def open_holds(self) -> int:
        return len(self._holds)

    # --- appending

    def append_hold(self, hold: Hold) -> None:
        """Raises JournalFull where the hold's settlement might find no room."""
        frame = self._frame(hold)
        kept = SETTLE_BYTES + 2 * len(frame)
        need = self._position + len(frame) + self._kept + kept
        if need > self._allocated:
            self._allocate(need)
        self._append(frame, for_hold=True)
        self._holds[hold.call_id] = (hold, kept)
        self._kept += kept
        if self._position >= self._rotate_at:
            self._rotate()

    def append_settle(self, settle: Settle) -> None:
        """Succeeds on a full disk too. Raises JournalBroken when all else failed."""
        assert settle.call_id in self._holds, "a settlement without a hold"
        self._append(self._frame(settle), for_hold=False)
        self._kept -= self._holds.pop(settle.call_id)[1]
        if self._position >= self._rotate_at:
            self._rotate()

    def append_note(self, note: Note) -> None:
        """Raises JournalFull where there is only room for settlements."""
        frame = self._frame(note)
        need = self._position + len(frame) + self._kept
        if need > self._allocated:
            self._allocate(need)
        self._append(frame, for_hold=True)
        if self._position >= self._rotate_at:
            self._rotate()

    def sync(self) -> None:
        """Put on disk what was appended so far (`sync: batch`, once an interval)."""
        current = self._fd  # a rotation meanwhile retires it, and leaves it open
        try:
            while self._retired:
                old = self._retired.popleft()
                try:
                    self._calls.datasync(old)
                finally:
                    os.close(old)
            self._calls.datasync(current)
        except OSError as exc:  # a failed sync may have dropped pages: asking again proves nothing
            self.broken = True
            raise JournalBroken(f"journal {self._name}: {exc}") from exc

    def close(self) -> None:
        """The clean end: append CLOSE, sync, give up the lock."""
        if self._fd < 0:
            return
        try:
            if not self.broken:
                self._append(self._frame(Close(time.time_ns() // 10**6)), for_hold=False)
                self._calls.truncate(self._fd, self._position)
                self.sync()
        finally:
            for fd in (*self._retired, self._fd):
                os.close(fd)
            self._retired.clear()
            self._fd = -1
            self._lock.release()

    def _frame(self, record: Record) -> bytes:
        payload = encode(record)
        sequence = self._sequence
        kind = TYPE_BYTES[type(record)]
        crc = extend_crc(extend_crc(self._seed, _checked(len(payload), sequence, kind)), payload)
        return _header(len(payload), sequence, kind, crc) + payload

    def _append(self, frame: bytes, *, for_hold: bool) -> None:
        if self.broken:
            raise JournalBroken(f"journal {self._name} is broken")
        try:
            written = self._write(self._fd, frame)
        except OSError as exc:
            self._failed_write(frame, for_hold, exc)
        else:
            if written == len(frame):
                self._position += written
                self._sequence += 1
            else:
                self._failed_write(frame, for_hold, None)
        if self._sync_mode == "always":
            self.sync()

    # --- when a disk is full or failing (rule 4)

    def _failed_write(self, frame: bytes, for_hold: bool, cause: OSError | None) -> None:
        """Take back what was written of a frame; a settlement gets two more chances."""
        why = f"journal {self._name}: {cause or 'short write'}"
        whole = self._truncate()
        if whole and not for_hold and self._retry(frame):
            return
        if not whole or not for_hold:
            whole = self._rotate()
        if whole and for_hold:
            raise JournalFull(why) from cause
        if not whole or not self._retry(self._again(frame)):
            self.broken = True
            raise JournalBroken(why) from cause

    def _truncate(self) -> bool:
        """Cut the file back to its last whole record; True: it ends there."""
        with contextlib.suppress(OSError):
            if os.fstat(self._fd).st_size != self._position:
                self._calls.truncate(self._fd, self._position)
                self._allocated = self._position  # truncating gave back the blocks set aside
                self._calls.reserve(self._fd, self._position, self._kept)
                self._allocated += self._kept
        with contextlib.suppress(OSError):
            return os.fstat(self._fd).st_size == self._position
        return False

    def _retry(self, frame: bytes) -> bool:
        with contextlib.suppress(OSError):
            if self._write(self._fd, frame) == len(frame):
                self._position += len(frame)
                self._sequence += 1
                return True
            self._truncate()
        return False

    def _again(self, frame: bytes) -> bytes:
        """The same record framed for the segment and the sequence number it goes to now."""
        payload, kind, sequence = frame[HEADER_BYTES:], frame[CHECKED_BYTES - 1], self._sequence
        crc = extend_crc(extend_crc(self._seed, _checked(len(payload), sequence, kind)), payload)
        return _header(len(payload), sequence, kind, crc) + payload

    def _allocate(self, need: int) -> None:
        for target in (need + RESERVE_STEP, need):
            try:
                self._calls.reserve(self._fd, self._position, target - self._position)
            except OSError as exc:
                cause = exc
            else:
                self._allocated = target
                return
        raise JournalFull(f"journal {self._name}: {cause}") from cause

    # --- segments

    def _rotate(self) -> bool:
        """Go on in a new segment; False: it could not be made, the old one goes on growing."""
        old, end, number = self._fd, self._position, self._number
        try:
            self._open_segment()
        except OSError:
            self._rotate_at = self._position + SEGMENT_RETRY_BYTES
            return False
        with contextlib.suppress(OSError):
            self._calls.truncate(old, end)  # gives the blocks set aside back
        self._retired.append(old)
        if self._sync_mode == "os":  # nobody will call sync: control does, before it commits
            os.close(self._retired.pop())
        assert self._number == number + 1
        return True

    def _open_segment(self) -> None:
        number = self._number + 1
        path = segment_path(self._directory, self.journal_id, number)
        temporary = path.with_suffix(".tmp")
        former = self._seed
        self._seed = seed(self.journal_id, number)
        frame = self._frame(self._opening(number))
        try:
            fd = self._write_segment(temporary, frame)
            try:
                temporary.rename(path)
                if self._sync_mode != "os":
                    sync_directory(self._directory)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            self._seed = former
            temporary.unlink(missing_ok=True)
            raise
        self._number, self._fd, self._position = number, fd, len(frame)
        self._allocated = len(frame) + self._kept
        self._rotate_at = max(self._segment_bytes, 2 * len(frame))
        self._sequence += 1

    def _opening(self, number: int) -> Segment:
        me = self._identity
        holds = [hold for hold, _ in self._holds.values()]
        return Segment(me.journal_id, me.epoch_id, me.boot_id, me.host_id, number, holds)

    def _write_segment(self, path: Path, frame: bytes) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._calls.reserve(fd, 0, len(frame) + self._kept)
            if self._write(fd, frame) != len(frame):
                raise OSError(f"short write to {path}")
        except BaseException:
            os.close(fd)
            raise
        return fd

    @property
    def _name(self) -> str:
        return segment_path(self._directory, self.journal_id, max(self._number, 0)).name


def _create_lock(path: Path) -> Lock:
    """A lock file that is locked before it has its name, so nobody ever sees it free."""
    temporary = path.with_suffix(".tmp")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        os.close(fd)
        raise
    return Lock(path, fd)
