import errno
import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager

import msgspec
import pytest

from db.journal import (
    SETTLE_BYTES,
    JournalBroken,
    JournalFull,
    JournalReader,
    JournalWriter,
    list_journals,
    lock_journal,
)
from db.journal_files import SystemCalls, segment_path, segments
from db.journal_records import DECODERS, TYPES, Close, Hold, Segment, Settle, encode
from tests.factories import a_hold, a_settle


def a_writer(directory, **options):
    options = {"epoch_id": 3, "host_id": "host-a", "boot_id": "boot-1"} | options
    return JournalWriter.create(directory, **options)


def read_all(directory, journal_id, **options):
    reader = JournalReader(directory, journal_id, **options)
    reader.sealed = True
    entries = []
    while not reader.exhausted:
        entries += reader.read()
    return reader, entries


def test_records_of_before_a_field_was_added_read_on():
    settle = a_settle(a_hold(), priced_nano=5)
    values = msgspec.msgpack.decode(encode(settle))
    assert (values.pop(), values.pop()) == (None, 5)
    before = DECODERS[TYPES.index(Settle)](msgspec.msgpack.encode(values))
    assert before == msgspec.structs.replace(settle, priced_nano=None)


def records(entries, *types):
    return [e.record for e in entries if isinstance(e.record, types)]


def test_what_was_written_is_read_in_order(tmp_path):
    writer = a_writer(tmp_path)
    first, second = a_hold(), a_hold(tags={"team": "blue"}, stream=True)
    ends = [a_settle(second, 5), a_settle(first)]
    for hold in (first, second):
        writer.append_hold(hold)
    for settle in ends:
        writer.append_settle(settle)
    writer.close()
    reader, entries = read_all(tmp_path, writer.journal_id)
    opening = entries[0].record
    assert isinstance(opening, Segment)
    assert (opening.epoch_id, opening.host_id, opening.boot_id) == (3, "host-a", "boot-1")
    assert records(entries, Hold) == [first, second]
    assert records(entries, Settle) == ends
    assert [e.hold for e in entries if e.hold] == [second, first]
    assert isinstance(entries[-1].record, Close)
    assert reader.closed
    assert not reader.truncated
    assert not reader.open_holds


def test_nothing_is_buffered(tmp_path):
    writer = a_writer(tmp_path)
    hold = a_hold()
    writer.append_hold(hold)
    _, entries = read_all(tmp_path, writer.journal_id)
    assert records(entries, Hold) == [hold]


def test_each_life_has_its_own_journal(tmp_path):
    one, two = a_writer(tmp_path), a_writer(tmp_path)
    assert list_journals(tmp_path) == sorted([one.journal_id, two.journal_id])


def test_files_are_not_inherited_by_children(tmp_path):
    writer = a_writer(tmp_path)
    listing = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, check=True)
    assert writer.journal_id.hex().encode() not in listing.stdout


def test_a_file_with_its_final_name_is_locked_and_begins_with_its_segment(tmp_path):
    writer = a_writer(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    stem = writer.journal_id.hex()
    assert names == {f"{stem}.lock", f"{stem}.00000000.seg"}
    assert lock_journal(tmp_path, writer.journal_id) is None
    writer.close()
    lock = lock_journal(tmp_path, writer.journal_id)
    assert lock is not None
    lock.release()


def test_rotation_carries_open_holds(tmp_path):
    writer = a_writer(tmp_path, segment_bytes=2000)
    longest = a_hold()
    writer.append_hold(longest)
    for _ in range(40):
        hold = a_hold()
        writer.append_hold(hold)
        writer.append_settle(a_settle(hold))
    numbers = segments(tmp_path, writer.journal_id)
    assert len(numbers) > 3
    reader, entries = read_all(tmp_path, writer.journal_id, segment=numbers[-1])
    assert longest in entries[0].record.open_holds
    assert longest.call_id in reader.open_holds
    writer.append_settle(a_settle(longest))
    reader, entries = read_all(tmp_path, writer.journal_id, segment=numbers[-1])
    assert entries[-1].hold == longest
    assert not reader.open_holds
    assert not reader.truncated


def test_rotated_segments_give_their_reserved_blocks_back(tmp_path):
    writer = a_writer(tmp_path, segment_bytes=2000)
    for _ in range(40):
        hold = a_hold()
        writer.append_hold(hold)
        writer.append_settle(a_settle(hold))
    former = os.stat(segment_path(tmp_path, writer.journal_id, 0))
    assert former.st_blocks * 512 <= 8192
    writer.close()
    last = os.stat(segment_path(tmp_path, writer.journal_id, writer.position[0]))
    assert last.st_blocks * 512 <= 8192


def test_always_syncs_before_an_append_returns(tmp_path):
    synced = []
    writer = a_writer(tmp_path, sync="always", calls=SystemCalls(datasync=synced.append))
    hold = a_hold()
    writer.append_hold(hold)
    assert len(synced) == 1
    writer.append_settle(a_settle(hold))
    assert len(synced) == 2


def test_batch_syncs_former_segments_too(tmp_path):
    synced = []
    calls = SystemCalls(datasync=lambda fd: synced.append(os.fstat(fd).st_ino))
    writer = a_writer(tmp_path, sync="batch", segment_bytes=1500, calls=calls)
    while writer.position[0] < 2:
        hold = a_hold()
        writer.append_hold(hold)
        writer.append_settle(a_settle(hold))
    assert not synced
    writer.sync()
    paths = [segment_path(tmp_path, writer.journal_id, number) for number in range(3)]
    assert synced == [path.stat().st_ino for path in paths]
    synced.clear()
    writer.sync()
    assert synced == [paths[2].stat().st_ino]


def test_a_failed_sync_stops_the_writer(tmp_path):
    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    writer = a_writer(tmp_path, sync="always", calls=SystemCalls(datasync=fail))
    with pytest.raises(JournalBroken, match="Input/output error"):
        writer.append_hold(a_hold())
    with pytest.raises(JournalBroken):
        writer.append_hold(a_hold())
    writer.close()


# --- full and failing disks ------------------------------------------------------------------


class Disk:
    """System calls on a disk of `room` bytes whose parts can be made to fail."""

    def __init__(self):
        self.room = 10**9
        self.reserved = {}
        self.truncates = True
        self.calls = SystemCalls(self.write, self.truncate, self.reserve, lambda fd: None)

    def _left(self):
        return self.room - sum(self.reserved.values())

    def reserve(self, fd, offset, length):
        end = offset + length
        if end - self.reserved.get(fd, 0) > self._left():
            raise OSError(errno.ENOSPC, "No space left on device")
        self.reserved[fd] = max(end, self.reserved.get(fd, 0))

    def write(self, fd, data):
        size = os.fstat(fd).st_size
        fits = min(len(data), self.reserved.get(fd, 0) + max(self._left(), 0) - size)
        if fits <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.reserved[fd] = max(self.reserved.get(fd, 0), size + fits)
        return os.write(fd, data[:fits])

    def truncate(self, fd, size):
        if not self.truncates:
            raise OSError(errno.EIO, "Input/output error")
        os.ftruncate(fd, size)
        self.reserved[fd] = size


def fill(writer, limit=2000):
    """Admit until the disk is full; the holds that were admitted."""
    holds = []
    for _ in range(limit):
        hold = a_hold()
        try:
            writer.append_hold(hold)
        except JournalFull:
            return holds
        holds.append(hold)
    raise AssertionError("the disk never filled up")


def test_a_full_disk_refuses_holds_and_takes_every_settlement(tmp_path):
    disk = Disk()
    disk.room = 300_000
    writer = a_writer(tmp_path, calls=disk.calls)
    holds = fill(writer)
    assert len(holds) > 20
    disk.room = 0  # somebody else took what was left
    big = "x" * (SETTLE_BYTES // 2)
    for hold in holds:
        writer.append_settle(a_settle(hold, response_id=big))
    writer.close()
    reader, entries = read_all(tmp_path, writer.journal_id)
    assert len(records(entries, Settle)) == len(holds)
    assert reader.closed
    assert not reader.open_holds


def test_settlements_make_room_for_holds_again(tmp_path):
    disk = Disk()
    disk.room = 200_000
    writer = a_writer(tmp_path, calls=disk.calls)
    holds = fill(writer)
    writer.append_settle(a_settle(holds[0]))
    writer.append_settle(a_settle(holds[1]))
    one_more = a_hold()
    writer.append_hold(one_more)
    _, entries = read_all(tmp_path, writer.journal_id)
    assert records(entries, Hold) == [*holds, one_more]


def test_a_hold_cut_short_is_taken_back(tmp_path):
    disk = Disk()
    writer = a_writer(tmp_path, calls=disk.calls)
    first = a_hold()
    writer.append_hold(first)
    disk.reserved, disk.room = {}, os.stat(segment_path(tmp_path, writer.journal_id, 0)).st_size
    disk.room += 30
    with pytest.raises(JournalFull):
        writer.append_hold(a_hold())
    disk.room = 10**9
    writer.append_settle(a_settle(first))
    second = a_hold()
    writer.append_hold(second)
    reader, entries = read_all(tmp_path, writer.journal_id)
    assert records(entries, Hold) == [first, second]
    assert not reader.truncated


def test_where_nothing_can_be_taken_back_the_settlement_goes_to_a_new_segment(tmp_path):
    disk = Disk()
    writes = []

    def half_once(fd, data):
        writes.append(fd)
        return os.write(fd, data[: len(data) // 2]) if len(writes) == 3 else os.write(fd, data)

    disk.truncates = False
    calls = SystemCalls(half_once, disk.truncate, disk.reserve, lambda fd: None)
    writer = a_writer(tmp_path, calls=calls)
    hold = a_hold()
    writer.append_hold(hold)
    settle = a_settle(hold)
    writer.append_settle(settle)
    assert writer.position[0] == 1
    reader, entries = read_all(tmp_path, writer.journal_id)
    assert records(entries, Settle) == [settle]
    assert not reader.truncated
    assert not reader.open_holds


def test_where_all_fails_the_worker_is_told(tmp_path):
    disk = Disk()
    writer = a_writer(tmp_path, calls=disk.calls)
    hold = a_hold()
    writer.append_hold(hold)
    disk.room, disk.reserved, disk.truncates = 0, {}, False
    with pytest.raises(JournalBroken, match="No space left"):
        writer.append_settle(a_settle(hold))
    with pytest.raises(JournalBroken, match="is broken"):
        writer.append_hold(a_hold())
    writer.close()


def test_a_rotation_that_fails_is_put_off(tmp_path):
    disk = Disk()
    writer = a_writer(tmp_path, segment_bytes=1000, calls=disk.calls)
    hold = a_hold()
    writer.append_hold(hold)
    disk.room = sum(disk.reserved.values())
    settle = a_settle(hold, response_id="x" * 1000)
    writer.append_settle(settle)
    assert writer.position[0] == 0
    _, entries = read_all(tmp_path, writer.journal_id)
    assert records(entries, Settle) == [settle]


@contextmanager
def a_small_disk(path, size):
    path.mkdir()
    mount = shutil.which("mount")
    options = [mount or "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if os.geteuid() != 0 or mount is None or subprocess.run(options, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_real_full_disk(tmp_path):
    with a_small_disk(tmp_path / "small", "512k") as small:
        writer = a_writer(small, segment_bytes=60_000)
        holds = fill(writer)
        with pytest.raises(OSError, match="No space left"):
            (small / "hog").write_bytes(bytes(2**20))
        for hold in holds:
            writer.append_settle(a_settle(hold, response_id="x" * 2000))
        writer.close()
        reader, entries = read_all(small, writer.journal_id)
        assert len(holds) > 20
        assert len([e for e in entries if e.hold]) == len(holds)
        assert reader.closed


# --- locks --------------------------------------------------------------------------------------


def test_only_death_frees_the_lock(tmp_path):
    source = (
        "import sys, time; from db.journal import JournalWriter;"
        "w = JournalWriter.create(sys.argv[1], epoch_id=1, host_id='h', boot_id='b');"
        "print(w.journal_id.hex(), flush=True); sys.stdin.read()"
    )
    command = [os.sys.executable, "-c", source, str(tmp_path)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, cwd=os.getcwd()
    )
    with child:
        journal_id = bytes.fromhex(child.stdout.readline().decode().strip())
        assert lock_journal(tmp_path, journal_id) is None
        child.kill()
    lock = lock_journal(tmp_path, journal_id)
    assert lock is not None
    reader, entries = read_all(tmp_path, journal_id)
    assert [type(e.record) for e in entries] == [Segment]
    assert not reader.closed
    with pytest.raises(BlockingIOError), open(lock.path) as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
