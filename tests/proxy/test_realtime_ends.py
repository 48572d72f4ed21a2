"""The two ends of a session: whole frames, and back-pressure both ways."""

from typing import Any

from proxy.realtime_ends import End
from proxy.websocket import Fault, Frames, Piece, text_frame


class Transport:
    """Takes note."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = False  # as after a handshake
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


class Pair:
    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.faults: list[Fault] = []
        self.lost: list[Exception | None] = []
        self.left, self.right = self._end(), self._end()
        self.left.other, self.right.other = self.right, self.left
        self.left_transport, self.right_transport = Transport(), Transport()

    def _end(self) -> End:
        return End(
            Frames(masked=False, message_bytes_max=1000),
            on_piece=self.pieces.append,
            on_fault=self.faults.append,
            on_gone=self.lost.append,
        )

    def attached(self, rest: bytes = b"") -> "Pair":
        left: Any = self.left_transport
        right: Any = self.right_transport
        self.left.attach(left)
        self.right.attach(right, rest)
        return self


def test_what_was_read_before_comes_first() -> None:
    pair = Pair().attached(text_frame(b"1") + text_frame(b"2")[:2])
    pair.right.data_received(text_frame(b"2")[2:])
    assert [piece.message for piece in pair.pieces] == [b"1", b"2"]
    assert pair.left_transport.reading
    assert pair.right_transport.reading


def test_a_slow_reader_stops_the_other_ends_writer() -> None:
    pair = Pair().attached()
    pair.left.pause_writing()  # the left peer does not read
    assert not pair.right_transport.reading
    assert pair.left_transport.reading
    pair.left.resume_writing()
    assert pair.right_transport.reading


def test_reading_goes_on_when_no_reason_is_left() -> None:
    pair = Pair().attached()
    pair.right.pause("waits")
    pair.right.pause("waits")
    pair.left.pause_writing()
    pair.right.resume("waits")
    assert not pair.right_transport.reading
    pair.left.resume_writing()
    pair.left.resume_writing()
    assert pair.right_transport.reading


def test_an_end_that_was_paused_before_it_was_attached() -> None:
    pair = Pair()
    pair.right.pause("waits")
    pair.attached()
    assert not pair.right_transport.reading


def test_a_peer_that_is_gone_stops_nobody() -> None:
    pair = Pair().attached()
    pair.left.pause_writing()
    error = ConnectionResetError()
    pair.left.connection_lost(error)
    assert pair.lost == [error]
    assert pair.right_transport.reading
    pair.left.write(b"x")
    pair.left.close()
    assert pair.left_transport.written == b""
    assert not pair.left_transport.closing


def test_nothing_is_written_behind_a_close() -> None:
    pair = Pair().attached()
    pair.left.write(b"1")
    pair.left.close()
    pair.left.write(b"2")
    assert pair.left_transport.written == b"1"


def test_faults_are_told() -> None:
    pair = Pair().attached()
    pair.right.data_received(text_frame(b"1") + b"\xff\xff")
    assert len(pair.pieces) == 1
    assert [fault.code for fault in pair.faults] == [1002]
