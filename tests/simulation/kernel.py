"""What processes ask of the kernel: descriptors, locks, and a disk that loses what is not synced.

Files are real ones in a temporary directory; what is simulated is which process holds which
descriptor, what has reached the disk, and how full it is.
"""

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import proxy.call
import proxy.ids
import proxy.server_connection
import proxy.upstream_connection
from db.journal_files import SystemCalls
from proxy.control import host as control_host
from tests.simulation.loop import CURRENT, Killed, Process, SimLoop, current

_real_open, _real_close, _real_write = os.open, os.close, os.write
_real_truncate, _real_fstat = os.ftruncate, os.fstat


class Disk:
    """One host's disk. Sizes that survive a power cut are kept by inode."""

    def __init__(self, directory: Path, random: Random) -> None:
        self.directory = directory
        self.full = False  # no room for anything that was not set aside before
        self._random = random
        self._synced: dict[int, int] = {}
        self._reserved: dict[int, int] = {}
        self._names: set[str] = set()  # durable directory entries

    def wrote(self, inode: int, size: int) -> None:
        if size < self._synced.get(inode, 0):
            self._synced[inode] = size

    def sync(self, inode: int, size: int) -> None:
        self._synced[inode] = size

    def sync_names(self) -> None:
        self._names = {path.name for path in self.directory.iterdir()}

    def reserve(self, inode: int, end: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._reserved[inode] = max(end, self._reserved.get(inode, 0))

    def room(self, inode: int, size: int, wanted: int) -> int:
        """How many of `wanted` bytes can be appended."""
        if not self.full:
            return wanted
        return max(0, min(wanted, self._reserved.get(inode, 0) - size))

    def shrink(self, inode: int, size: int) -> None:
        self._reserved[inode] = min(size, self._reserved.get(inode, 0))
        self.wrote(inode, size)

    def lose_power(self) -> list[str]:
        """Cut each journal at some byte after the last one that was synced; names that were not
        synced may be gone altogether."""
        lost = []
        for path in sorted(self.directory.iterdir()):
            status = path.stat()
            if path.name not in self._names and self._random.random() < 0.5:
                path.unlink()
                lost.append(path.name)
            elif path.suffix == ".seg":
                synced = min(self._synced.get(status.st_ino, 0), status.st_size)
                kept = self._random.choice((synced, self._random.randint(synced, status.st_size)))
                if kept < status.st_size:
                    os.truncate(path, kept)
                    lost.append(f"{path.name}@{kept}")
                self._synced[status.st_ino] = kept
        self._reserved.clear()
        return lost


class Kernel:
    """Descriptors by process. `tear` decides how much of a write a dying process gets done."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.disks: list[Disk] = []
        self.started_s = 0.0  # wall clock at loop time 0
        self.on_write: Any = lambda process, data: None
        self.on_log: Any = lambda process, data: None
        self._owners: dict[int, Process] = {}

    def calls(self) -> SystemCalls:
        return SystemCalls(
            write=self.write, truncate=self.truncate, reserve=self.reserve, datasync=os.fdatasync
        )

    def wall_ns(self) -> int:
        return int((self.started_s + self.loop.now) * 1e9)

    def _disk(self, fd: int) -> Disk | None:
        process = self._owners.get(fd)
        return process.host.disk if process is not None and process.host is not None else None

    # --- system calls

    def open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        process = CURRENT.get(None)
        if process is not None and not process.alive:
            raise Killed
        fd = _real_open(path, flags, mode, **more)
        if process is not None and process is not self.loop.world:
            if fd not in self._owners:
                process.on_death.append(lambda: self._close_of(process, fd))
            self._owners[fd] = process
        return fd

    def close(self, fd: int) -> None:
        process = CURRENT.get(None)
        if process is not None and not process.alive:
            raise Killed
        self._owners.pop(fd, None)
        _real_close(fd)

    def _close_of(self, process: Process, fd: int) -> None:
        if self._owners.get(fd) is process:
            del self._owners[fd]
            _real_close(fd)

    def write(self, fd: int, data: bytes) -> int:
        process = current()
        disk, status = self._disk(fd), _real_fstat(fd)
        room = disk.room(status.st_ino, status.st_size, len(data)) if disk else len(data)
        if process.dies_in_write:
            process.dies_in_write -= 1
            if not process.dies_in_write:
                _real_write(fd, data[: min(room, self.random.randint(0, len(data)))])
                process.die()
                raise Killed
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = _real_write(fd, data[:room])
        wall = self.wall_ns()
        os.utime(fd, ns=(wall, wall))
        if written == len(data):
            self.on_write(process, data)
        return written

    def truncate(self, fd: int, size: int) -> None:
        current()
        _real_truncate(fd, size)
        disk = self._disk(fd)
        if disk is not None:
            disk.shrink(_real_fstat(fd).st_ino, size)

    def reserve(self, fd: int, offset: int, length: int) -> None:
        current()
        disk = self._disk(fd)
        if disk is not None:
            disk.reserve(_real_fstat(fd).st_ino, offset + length)

    def sync(self, fd: int) -> None:
        """fsync and fdatasync, of files and of directories."""
        current()
        disk, status = self._disk(fd), _real_fstat(fd)
        if disk is not None:
            if status.st_mode & 0o040000:
                disk.sync_names()
            else:
                disk.sync(status.st_ino, status.st_size)

    def log(self, fd: int, data: bytes) -> int:
        """`os.write`: logs and small files, never a journal."""
        if fd > 2:
            return _real_write(fd, data)
        self.on_log(CURRENT.get(None), data)
        return len(data)

    # --- in force

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Clocks, random numbers and system calls are this world's."""
        random, numbers = self.random, iter(range(10**9))
        hashes: dict[int, tuple[object, int]] = {}

        def numbered(self: object) -> int:
            """Sets of these are iterated in an order that does not depend on addresses."""
            known = hashes.get(id(self))
            if known is None:
                known = hashes[id(self)] = (self, next(numbers))
            return known[1]

        def some_uuid() -> uuid.UUID:
            return uuid.UUID(bytes=random.randbytes(16), version=4)

        def boot_id() -> str:
            return str(current().host.boot_id)

        classes = (
            proxy.call.Call,
            proxy.server_connection.Connection,
            proxy.upstream_connection.Connection,
        )
        patches = [
            mock.patch.multiple(
                os,
                open=self.open,
                close=self.close,
                write=self.log,
                fdatasync=self.sync,
                fsync=self.sync,
            ),
            mock.patch.multiple(
                time,
                time_ns=self.wall_ns,
                time=lambda: self.wall_ns() / 1e9,
                monotonic=lambda: self.loop.now,
                perf_counter_ns=lambda: int(self.loop.now * 1e9),
            ),
            mock.patch.object(uuid, "uuid4", some_uuid),
            mock.patch.object(proxy.ids, "_random", random),
            mock.patch("random.uniform", random.uniform),
            mock.patch.object(control_host, "boot_id", boot_id),
            *(mock.patch.object(cls, "__hash__", numbered) for cls in classes),
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in reversed(patches):
                patch.stop()
