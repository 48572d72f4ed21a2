"""Reading in the face of cuts, damage, rotation and restarts."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.journal import Damage, JournalError, JournalReader
from db.journal_files import delete_before, segment_path, segments
from db.journal_records import Hold, Segment, Settle
from tests.db.test_journal import a_writer, read_all, records
from tests.factories import a_hold, a_settle


def content(entries):
    return [e.record for e in entries if not isinstance(e.record, Segment)]


def write_calls(writer, script):
    """Open a hold for each True, settle the oldest open one for each False."""
    written, still_open = [], []
    for opens in script:
        if opens or not still_open:
            hold = a_hold()
            writer.append_hold(hold)
            still_open.append(hold)
            written.append(hold)
        else:
            settle = a_settle(still_open.pop(0))
            writer.append_settle(settle)
            written.append(settle)
    return written, {hold.call_id for hold in still_open}


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """One file of a dozen records without CLOSE, as a killed worker leaves it."""
    directory = tmp_path_factory.mktemp("journal")
    writer = a_writer(directory)
    written, _ = write_calls(writer, [True, True, False, True, False, True, True, False] * 2)
    path = segment_path(directory, writer.journal_id, 0)
    return writer.journal_id, path.read_bytes(), written


def put(tmp_path_factory, journal_id, data):
    directory = tmp_path_factory.mktemp("copy")
    segment_path(directory, journal_id, 0).write_bytes(data)
    return directory


@given(st.data())
def test_any_cut_of_the_tail_leaves_the_records_before_it(journal, tmp_path_factory, data):
    journal_id, whole, written = journal
    cut = data.draw(st.integers(1, len(whole)))
    directory = put(tmp_path_factory, journal_id, whole[:cut])
    reader, entries = read_all(directory, journal_id)
    got = content(entries)
    assert got == written[: len(got)]
    assert not reader.truncated  # a write that was cut, nothing that had been acknowledged
    assert reader.position[1] <= cut
    if cut == len(whole):
        assert got == written


@given(st.data())
def test_any_damaged_byte_costs_at_most_its_record_and_is_noticed(journal, tmp_path_factory, data):
    journal_id, whole, written = journal
    place = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(1, 255))
    bad = bytearray(whole)
    bad[place] ^= value
    directory = put(tmp_path_factory, journal_id, bytes(bad))
    damages: list[Damage] = []
    reader, entries = read_all(directory, journal_id, on_damage=damages.append)
    got = content(entries)
    assert reader.truncated
    assert len(got) >= len(written) - 1
    assert [record for record in written if record in got] == got
    assert damages[0].start <= place < damages[0].end
    assert damages[0].data == bytes(bad)[damages[0].start : damages[0].end]


def test_a_live_reader_waits_at_an_incomplete_tail(journal, tmp_path):
    journal_id, whole, written = journal
    path = segment_path(tmp_path, journal_id, 0)
    path.write_bytes(b"")
    reader = JournalReader(tmp_path, journal_id)
    got = []
    with path.open("ab", buffering=0) as file:
        for at in range(0, len(whole), 7):
            file.write(whole[at : at + 7])
            got += content(reader.read())
    assert got == written
    assert not reader.exhausted
    assert not reader.truncated
    assert reader.position == (0, len(whole))


def test_a_live_reader_passes_damage_once_something_good_follows(journal, tmp_path):
    journal_id, whole, written = journal
    path = segment_path(tmp_path, journal_id, 0)
    bad = bytearray(whole)
    bad[600] ^= 0xFF
    path.write_bytes(bytes(bad))
    reader = JournalReader(tmp_path, journal_id)
    assert len(content(reader.read())) == len(written) - 1
    assert reader.truncated


def test_a_record_of_another_journal_or_segment_is_not_valid(journal, tmp_path):
    _, whole, _ = journal
    stranger = b"s" * 16
    segment_path(tmp_path, stranger, 0).write_bytes(whole)
    reader, entries = read_all(tmp_path, stranger)
    assert not entries
    assert reader.truncated


def test_small_reads_return_everything(journal, tmp_path):
    journal_id, whole, written = journal
    segment_path(tmp_path, journal_id, 0).write_bytes(whole)
    reader = JournalReader(tmp_path, journal_id)
    got = []
    while entries := reader.read(max_bytes=1):
        got += content(entries)
    assert got == written


def test_reading_follows_rotation_while_the_writer_goes_on(tmp_path):
    writer = a_writer(tmp_path, segment_bytes=1500)
    reader = JournalReader(tmp_path, writer.journal_id)
    got, written, still_open = [], [], set()
    for _ in range(12):
        records, left = write_calls(writer, [True, True, False])
        written += records
        still_open |= left
        got += content(reader.read())
    assert writer.position[0] > 3
    assert got == written
    assert reader.position == writer.position
    assert set(reader.open_holds) == still_open
    assert reader.identity is not None
    assert reader.identity.number == writer.position[0]
    reader.sync()
    reader.close()


@given(
    script=st.lists(st.booleans(), min_size=1, max_size=60),
    segment_bytes=st.sampled_from([800, 2500, 10**6]),
    share=st.floats(0, 1),
    drop=st.booleans(),
)
def test_recovery_continues_where_the_offset_was(
    tmp_path_factory, script, segment_bytes, share, drop
):
    """Records before the offset only rebuild open holds, those after it come exactly once."""
    directory = tmp_path_factory.mktemp("recovery")
    writer = a_writer(directory, segment_bytes=segment_bytes)
    written, still_open = write_calls(writer, script)
    _, entries = read_all(directory, writer.journal_id)
    taken = entries[: int(len(entries) * share)]
    segment, offset = (taken[-1].segment, taken[-1].end) if taken else (0, 0)
    if drop:
        delete_before(directory, writer.journal_id, segment, older_than_s=2**40)
    reader, rest = read_all(directory, writer.journal_id, segment=segment, offset=offset)
    assert content(taken) + content(rest) == written
    assert set(reader.open_holds) == still_open
    assert all(e.hold is not None for e in rest if isinstance(e.record, Settle))
    assert not reader.truncated
    assert not any(e.lost for e in rest)


def test_a_settlement_lost_in_a_damaged_segment_is_told_by_the_next(tmp_path):
    writer = a_writer(tmp_path, segment_bytes=10**6)
    victim, other = a_hold(), a_hold()
    writer.append_hold(victim)
    start = writer.position[1]
    writer.append_settle(a_settle(victim))
    writer.append_hold(other)
    assert writer._rotate()
    path = segment_path(tmp_path, writer.journal_id, 0)
    with path.open("r+b") as file:
        file.seek(start + 40)
        file.write(b"\xff\xff\xff")
    reader, entries = read_all(tmp_path, writer.journal_id)
    assert reader.truncated
    assert [e.lost for e in entries if e.lost] == [(victim,)]
    assert list(reader.open_holds) == [other.call_id]


def test_a_hold_lost_in_a_damaged_segment_comes_back_with_the_next(tmp_path):
    writer = a_writer(tmp_path, segment_bytes=10**6)
    start = writer.position[1]
    victim = a_hold()
    writer.append_hold(victim)
    writer.append_hold(a_hold())
    assert writer._rotate()
    writer.append_settle(a_settle(victim))
    path = segment_path(tmp_path, writer.journal_id, 0)
    with path.open("r+b") as file:
        file.seek(start + 40)
        file.write(b"\xff\xff\xff")
    reader, entries = read_all(tmp_path, writer.journal_id)
    assert reader.truncated
    assert entries[-1].hold == victim


def test_missing_segments_are_noticed(tmp_path):
    writer = a_writer(tmp_path, segment_bytes=1000)
    write_calls(writer, [True, False] * 20)
    os.unlink(segment_path(tmp_path, writer.journal_id, 2))
    damages: list[Damage] = []
    reader, _ = read_all(tmp_path, writer.journal_id, on_damage=damages.append)
    assert reader.truncated
    assert [(d.segment, d.start, d.end) for d in damages] == [(3, 0, 0)]
    numbers = segments(tmp_path, writer.journal_id)
    delete_before(tmp_path, writer.journal_id, numbers[-1], older_than_s=2**40)
    reader, entries = read_all(tmp_path, writer.journal_id, on_damage=damages.append)
    assert reader.truncated
    assert {e.segment for e in entries} == {numbers[-1]}
    assert "missing" in damages[-1].reason


def test_a_journal_without_files_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="no segment 0"):
        JournalReader(tmp_path, b"x" * 16)


def test_damage_before_the_offset_is_not_reported_again(journal, tmp_path):
    journal_id, whole, written = journal
    bad = bytearray(whole)
    bad[600] ^= 0xFF
    segment_path(tmp_path, journal_id, 0).write_bytes(bytes(bad))
    damages: list[Damage] = []
    _, entries = read_all(tmp_path, journal_id, on_damage=damages.append)
    assert len(damages) == 1
    reader, rest = read_all(
        tmp_path, journal_id, segment=0, offset=entries[-2].end, on_damage=damages.append
    )
    assert len(damages) == 1
    assert reader.truncated
    assert len(rest) == 1
    assert records(rest, Hold, Settle) == written[-1:]
