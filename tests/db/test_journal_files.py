import errno
import os

import pytest

import db.journal_files as files
from db.journal_files import (
    JournalError,
    JournalLocked,
    delete_before,
    delete_journal,
    list_journals,
    lock_control,
    refuse_remote,
    segments,
)
from tests.db.test_journal import a_writer
from tests.factories import a_hold, a_settle


def several_segments(directory):
    writer = a_writer(directory, segment_bytes=1000)
    for _ in range(10):
        hold = a_hold()
        writer.append_hold(hold)
        writer.append_settle(a_settle(hold))
    writer.close()
    return writer.journal_id


def test_one_control_per_directory(tmp_path):
    lock = lock_control(tmp_path)
    with pytest.raises(JournalLocked, match=rf"{tmp_path}.*pid {os.getpid()}"):
        lock_control(tmp_path)
    lock.release()
    lock_control(tmp_path).release()
    assert list_journals(tmp_path) == []


@pytest.mark.parametrize(("kind", "refused"), [("nfs4", True), ("cifs", True), ("ext4", False)])
def test_remote_file_systems_are_refused(tmp_path, kind, refused):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n/dev/b /boot nfs rw 0 0\n"
    )
    if not refused:
        refuse_remote(tmp_path / "journal", mounts)
        return
    with pytest.raises(JournalError, match=f"on {kind}"):
        refuse_remote(tmp_path / "journal", mounts)


def test_a_system_without_mount_table_is_trusted(tmp_path):
    mounts = tmp_path / "mounts"
    refuse_remote(tmp_path, mounts)
    mounts.write_text(f"server:/x {tmp_path} nfs rw 0 0\n")
    with pytest.raises(JournalError):
        refuse_remote(tmp_path, mounts)


def test_segments_go_only_when_passed_and_old(tmp_path):
    journal_id = several_segments(tmp_path)
    numbers = segments(tmp_path, journal_id)
    assert len(numbers) >= 4
    for number in numbers[:3]:
        os.utime(files.segment_path(tmp_path, journal_id, number), (1000, 1000))
    assert delete_before(tmp_path, journal_id, numbers[2], older_than_s=2000) == 2
    assert segments(tmp_path, journal_id) == numbers[2:]
    assert delete_before(tmp_path, journal_id, numbers[-1], older_than_s=2000) == 1


def test_a_finished_journal_goes_with_its_lock(tmp_path):
    journal_id = several_segments(tmp_path)
    assert not delete_journal(tmp_path, journal_id, older_than_s=0)
    assert list_journals(tmp_path) == [journal_id]
    (tmp_path / f"{journal_id.hex()}.00000099.tmp").touch()
    assert delete_journal(tmp_path, journal_id, older_than_s=2**40)
    assert list(tmp_path.iterdir()) == []


def test_reserving_does_not_change_the_size(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        files.reserve(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 0
        assert os.fstat(file.fileno()).st_blocks * 512 >= 100_000


@pytest.mark.parametrize("libc", ["absent", "unsupported"])
def test_reserving_falls_back_to_free_space(tmp_path, monkeypatch, libc):
    def unsupported(*args):
        files.ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

    function = None if libc == "absent" else unsupported
    monkeypatch.setattr(files, "_libc_fallocate", lambda: function)
    with open(tmp_path / "file", "wb") as file:
        files.reserve(file.fileno(), 0, 100_000)
        with pytest.raises(OSError, match="No space left"):
            files.reserve(file.fileno(), 0, 2**60)


def test_what_takes_too_much_disk_goes_the_oldest_first(tmp_path):
    ids = [several_segments(tmp_path) for _ in range(2)]
    for age, journal_id in enumerate(reversed(ids)):  # the second journal is the older one
        for number in segments(tmp_path, journal_id):
            os.utime(files.segment_path(tmp_path, journal_id, number), (age, 100 * age + number))
    before = files.shrink(tmp_path, {}, 0)
    assert [segments(tmp_path, id_)[0] for id_ in ids] == [0, 0], "nothing was passed"
    passed = {ids[0]: 2, ids[1]: 3}
    assert files.shrink(tmp_path, passed, before) == before
    assert files.shrink(tmp_path, passed, before - 1) < before
    assert [segments(tmp_path, id_)[0] for id_ in ids] == [0, 1]
    assert files.shrink(tmp_path, passed, 0) > 0
    assert [segments(tmp_path, id_)[0] for id_ in ids] == [2, 3]
