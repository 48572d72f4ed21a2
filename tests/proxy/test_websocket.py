"""Frames in any pieces: what goes on is what came, and messages are found in it."""

import struct
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from proxy.websocket import Frames, Piece, close_frame, text_frame
from tests.cuts import cut, offsets

LIMIT = 200_000
CONTROL = (Opcode.PING, Opcode.PONG)


class Stream(NamedTuple):
    """What a peer sends, and the messages in it."""

    frames: list[bytes]
    messages: list[tuple[bytes, bool]]


def sizes() -> st.SearchStrategy[int]:
    """Around the three encodings of a length, and everything else."""
    return st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 127, 65535, 65536, 70_000]))


@st.composite
def streams(draw: st.DrawFn, *, masked: bool) -> Stream:
    frames: list[bytes] = []
    messages: list[tuple[bytes, bool]] = []

    def add(opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        frames.append(Frame(opcode, data, fin=fin).serialize(mask=masked))

    for _ in range(draw(st.integers(0, 5))):
        text = draw(st.booleans())
        parts = draw(st.lists(sizes().map(lambda size: bytes([size % 251]) * size), max_size=4))
        if not parts:
            add(draw(st.sampled_from(CONTROL)), draw(st.binary(max_size=125)))
            continue
        for number, part in enumerate(parts):
            first = Opcode.TEXT if text else Opcode.BINARY
            add(Opcode.CONT if number else first, part, fin=number == len(parts) - 1)
            if draw(st.booleans()):  # control frames may come between the fragments
                add(draw(st.sampled_from(CONTROL)), draw(st.binary(max_size=125)))
        messages.append((b"".join(parts), text))
    return Stream(frames, messages)


def fed(frames: Frames, parts: list[bytes]) -> list[Piece]:
    return [piece for part in parts for piece in frames.feed(part)]


@pytest.mark.parametrize("masked", [True, False])
@given(data=st.data(), at=offsets())
def test_every_cut(masked: bool, data: st.DataObject, at: list[int]) -> None:
    stream = data.draw(streams(masked=masked))
    frames = Frames(masked=masked, message_bytes_max=LIMIT * 2)

    pieces = fed(frames, cut(b"".join(stream.frames), at))

    assert [piece.raw for piece in pieces] == stream.frames
    found = [(p.message, p.text) for p in pieces if p.message is not None]
    assert found == stream.messages
    assert frames.fault is None
    assert frames.between_messages


@given(noise=st.binary(max_size=400), at=offsets())
def test_noise_never_raises_and_memory_is_bounded(noise: bytes, at: list[int]) -> None:
    frames = Frames(masked=False, message_bytes_max=100)

    pieces = fed(frames, cut(noise, at))

    assert noise.startswith(b"".join(piece.raw for piece in pieces))
    assert all(len(piece.message or b"") <= 125 for piece in pieces)


def test_what_comes_before_a_fault_is_still_there() -> None:
    frames = Frames(masked=False, message_bytes_max=LIMIT)

    pieces = frames.feed(text_frame(b"one") + b"\x83\x00" + text_frame(b"two"))

    assert [piece.message for piece in pieces] == [b"one"]
    assert frames.fault is not None
    assert frames.fault.code == 1002
    assert frames.feed(text_frame(b"three")) == []


def raw(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    return bytes([opcode | (0x80 if fin else 0), len(data)]) + data


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (raw(Opcode.CONT, b"x"), 1002),  # of nothing
        (raw(Opcode.TEXT, fin=False) + raw(Opcode.TEXT), 1002),  # one within the other
        (raw(Opcode.PING, fin=False), 1002),
        (b"\x89\x7e\x00\x7e" + bytes(126), 1002),  # a ping beyond 125 bytes
        (b"\xc1\x00", 1002),  # a bit of an extension
        (b"\x81\x80mask", 1002),  # masked by a server
        (b"\x81\x7f" + struct.pack("!Q", 1001), 1009),
        (b"\x81\x7f" + struct.pack("!Q", 2**63), 1009),  # found before any of it is read
        (
            raw(Opcode.TEXT, bytes(120), fin=False) + raw(Opcode.CONT, bytes(120), fin=False) * 9,
            1009,
        ),
        (raw(Opcode.TEXT, fin=False) + raw(Opcode.CONT, fin=False) * 100, 1009),
    ],
    ids=lambda value: str(value)[:20],
)
def test_faults(sent: bytes, code: int) -> None:
    frames = Frames(masked=False, message_bytes_max=1000)

    fed(frames, [sent[at : at + 1] for at in range(len(sent))])

    assert frames.fault is not None
    assert frames.fault.code == code


def test_in_the_middle_of_a_message() -> None:
    frames = Frames(masked=False, message_bytes_max=LIMIT)
    frames.feed(raw(Opcode.TEXT, b"a", fin=False))
    assert not frames.between_messages
    frames.feed(raw(Opcode.CONT, b"b"))
    assert frames.between_messages


@pytest.mark.parametrize("masked", [True, False])
def test_frames_of_our_own(masked: bool) -> None:
    frames = Frames(masked=masked, message_bytes_max=LIMIT)

    first, last = frames.feed(
        text_frame(b"{}", masked=masked) + close_frame(1008, "ä" * 100, masked=masked)
    )

    assert (first.message, first.text, first.is_control) == (b"{}", True, False)
    assert (last.is_close, last.is_control, last.message) == (True, True, None)
    assert frames.fault is None
    if not masked:
        assert last.raw[2:4] == struct.pack("!H", 1008)
        assert last.raw[4:].decode() == "ä" * 61  # what fits, no half of a letter
