"""A journal's files: their names, their locks, and the few system calls a journal makes.

A journal is `ID.lock` plus segments `ID.00000000.seg`, `ID.00000001.seg`, ... in one directory
per host. The lock is the only proof of life there is (protocol R1): process ids decide nothing.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from google_crc32c import extend as extend_crc
from msgspec import Struct

HEADER_FORMAT = "<IQBI"  # payload length, sequence, type, crc32c of the former and the payload
HEADER_BYTES = 17
CHECKED_BYTES = 13  # the part of the header that the crc covers
CONTROL_LOCK = "control.lock"
# flock over these is emulated, silently ignored or lost with a connection.
REMOTE_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs"}
FALLOC_FL_KEEP_SIZE = 1


class JournalError(Exception):
    """A journal cannot be used; the message says which and why."""


class JournalFull(JournalError):
    """No room for another hold and its settlement: refuse the call. Settlements still fit."""


class JournalBroken(JournalError):
    """A record could be neither appended nor taken back: the worker must stop."""


class JournalLocked(JournalError):
    """Another process owns this directory."""


def seed(journal_id: bytes, segment: int) -> int:
    """Start value of a segment's checksums: a record copied from elsewhere is never valid."""
    start: int = extend_crc(0, journal_id + segment.to_bytes(4, "little"))
    return start


def segment_path(directory: Path, journal_id: bytes, segment: int) -> Path:
    return directory / f"{journal_id.hex()}.{segment:08d}.seg"


def lock_path(directory: Path, journal_id: bytes) -> Path:
    return directory / f"{journal_id.hex()}.lock"


def segments(directory: Path, journal_id: bytes) -> list[int]:
    """Numbers of the segments that are there, in order."""
    names = directory.glob(f"{journal_id.hex()}.*.seg")
    return sorted(int(name.name.split(".")[1]) for name in names)


def list_journals(directory: str | Path) -> list[bytes]:
    """Ids of all journals in a directory, dead and alive; unordered."""
    found = set()
    for path in Path(directory).glob("*.*"):
        if path.suffix in (".lock", ".seg") and path.name != CONTROL_LOCK:
            found.add(bytes.fromhex(path.name.split(".")[0]))
    return sorted(found)


def delete_before(
    directory: str | Path, journal_id: bytes, segment: int, *, older_than_s: float
) -> int:
    """Delete the segments before `segment` last written before `older_than_s` (unix time).

    Only for segments that a fully synced commit has passed (rule 7). Returns how many went.
    """
    directory = Path(directory)
    old = [
        segment_path(directory, journal_id, number)
        for number in segments(directory, journal_id)
        if number < segment
    ]
    old = [path for path in old if path.stat().st_mtime < older_than_s]
    for path in old:
        path.unlink()
    return len(old)


def delete_journal(directory: str | Path, journal_id: bytes, *, older_than_s: float) -> bool:
    """Delete a finished journal, lock included, once all of it is old enough."""
    directory = Path(directory)
    delete_before(directory, journal_id, 2**32, older_than_s=older_than_s)
    if segments(directory, journal_id):
        return False
    lock_path(directory, journal_id).unlink(missing_ok=True)
    for unborn in directory.glob(f"{journal_id.hex()}.*tmp"):  # a rotation cut by death
        unborn.unlink()
    return True


def shrink(directory: Path, passed: Mapping[bytes, int], bytes_max: int) -> int:
    """Delete segments before those in `passed`, by journal, the oldest first, until all that is
    there takes no more than `bytes_max` of the disk. Returns what it takes then."""
    total, old = 0, []
    for path in directory.glob("*.seg"):
        name, number, _ = path.name.split(".")
        stat = path.stat()
        size = stat.st_blocks * 512  # with what is set aside
        total += size
        if int(number) < passed.get(bytes.fromhex(name), 0):
            old.append((stat.st_mtime, size, path))
    for _, size, path in sorted(old):
        if total <= bytes_max:
            break
        path.unlink()
        total -= size
    return total


# --- locks ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Lock:
    """A held lock. It lives as long as any copy of the descriptor; none is ever inherited."""

    path: Path
    fd: int

    def release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def take_lock(path: Path) -> Lock | None:
    """Lock a file, which is made if it is not there; None: somebody else holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return Lock(path, fd)


def lock_journal(directory: str | Path, journal_id: bytes) -> Lock | None:
    """The proof that a journal's writer is dead and cannot write any more; None: it lives."""
    return take_lock(lock_path(Path(directory), journal_id))


def lock_control(directory: str | Path) -> Lock:
    """Make the caller the one control of this host. Raises JournalLocked naming the other."""
    directory = Path(directory)
    refuse_remote(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / CONTROL_LOCK
    lock = take_lock(path)
    if lock is None:
        owner = path.read_text(errors="replace").strip() or "unknown"
        raise JournalLocked(f"journal {directory} is in use by another control (pid {owner})")
    os.ftruncate(lock.fd, 0)
    os.pwrite(lock.fd, b"%d\n" % os.getpid(), 0)
    return lock


def refuse_remote(directory: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Raise JournalError for a directory on a network file system: locks prove nothing there."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return
    where, kind = Path("/"), ""
    for line in lines:
        _, point, filesystem, *_ = line.split(" ")
        mount = Path(point.replace("\\040", " "))
        if directory.resolve().is_relative_to(mount) and mount.is_relative_to(where):
            where, kind = mount, filesystem
    if kind in REMOTE_FILESYSTEMS:
        raise JournalError(
            f"journal {directory} is on {kind} ({where}): it needs a disk of this host"
        )


# --- system calls --------------------------------------------------------------------------


@cache
def _libc_fallocate() -> Callable[[int, int, int, int], int] | None:
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "fallocate", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def reserve(fd: int, offset: int, length: int) -> None:
    """Set blocks aside beyond a file's end without changing its size. Raises OSError ENOSPC.

    Where the file system cannot do that, free space is compared instead: no guarantee, but the
    best there is.
    """
    fallocate = _libc_fallocate()
    code = errno.EOPNOTSUPP
    if fallocate is not None:
        if fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length) == 0:
            return
        code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        stat = os.fstatvfs(fd)
        if stat.f_bavail * stat.f_frsize >= length:
            return
        code = errno.ENOSPC
    raise OSError(code, os.strerror(code))


def sync_directory(directory: Path) -> None:
    """Make names created or renamed in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def bytes_after(directory: Path, journal_id: bytes, position: tuple[int, int]) -> int:
    """How much there is of a journal behind a position (segment, offset)."""
    segment, offset = position
    total = 0
    for number in segments(directory, journal_id):
        if number >= segment:
            size = segment_path(directory, journal_id, number).stat().st_size
            total += size - offset if number == segment else size
    return max(total, 0)


def sync_after(directory: Path, journal_id: bytes, segment: int) -> None:
    """Put the segments behind `segment` on disk, whoever writes them."""
    later = [number for number in segments(directory, journal_id) if number > segment]
    for number in later:
        fd = os.open(segment_path(directory, journal_id, number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
    if later:
        sync_directory(directory)


class SystemCalls(Struct, frozen=True):
    """What a writer asks of the kernel; tests put full and failing disks here."""

    write: Callable[[int, bytes], int] = os.write
    truncate: Callable[[int, int], None] = os.ftruncate
    reserve: Callable[[int, int, int], None] = reserve
    datasync: Callable[[int], None] = os.fdatasync
