"""Messages between the planes: whole, in order, and an end that is noticed once."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.channel import FRAME_BYTES_MAX, FrameDecoder, LocalChannel, connect, encode_frame
from proxy.wire import Ack, Drain, Hello, Room, Slices, SliceStatus, Status, Unwant, Want, Welcome

MESSAGES = [
    Welcome(1, "host", "boot", "/journal", "os", 2**26),
    Hello(b"j" * 16, 7),
    Ack(3),
    Slices([((1, 2), 3)], [Room((1, 2), 10, 1, 5, 5, True, b"c", 4)], [b"call"], True),
    Status([SliceStatus((1, 2), 0, 1, 2, 3)], b"metrics"),
    Want(b"call", [((1, 2), 2**62)], 5),
    Unwant(b"call"),
    Drain(),
]


class End:
    """Collects what one end of a channel gets."""

    def __init__(self, channel):
        self.channel = channel
        self.messages = []
        self.ends = 0
        self.over = asyncio.Event()
        channel.start(self.messages.append, self.on_close)

    def on_close(self):
        self.ends += 1
        self.over.set()


@given(st.lists(st.integers(min_value=1, max_value=40)))
def test_frames_are_found_however_they_are_cut(cuts):
    data = b"".join(map(encode_frame, MESSAGES))
    decoder, got = FrameDecoder(), []
    for size in cuts:
        got += decoder.feed(data[:size])
        data = data[size:]
    got += decoder.feed(data)
    assert got == MESSAGES


def test_a_frame_that_cannot_be_one_is_refused():
    with pytest.raises(ValueError, match="a frame of"):
        FrameDecoder().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "little"))


async def socket_pair():
    ours, theirs = socket.socketpair()
    return await connect(ours), await connect(theirs)


async def local_pair():
    return LocalChannel.pair()


@pytest.fixture(params=[local_pair, socket_pair])
async def pair(request):
    one, other = await request.param()
    yield one, other
    one.close()
    other.close()
    await asyncio.sleep(0)


async def test_messages_arrive_in_order_those_before_start_too(pair):
    one, other = pair
    for message in MESSAGES[:4]:
        one.send(message)
    await asyncio.sleep(0)
    end = End(other)
    for message in MESSAGES[4:]:
        one.send(message)
    assert len(end.messages) < len(MESSAGES), "delivered from inside send"
    one.close()
    await asyncio.wait_for(end.over.wait(), 5)
    assert end.messages == MESSAGES


async def test_the_end_is_told_once_to_both(pair):
    one, other = pair
    ends = End(one), End(other)
    one.close()
    one.close()
    for end in ends:
        await asyncio.wait_for(end.over.wait(), 5)
    other.send(Drain())
    one.send(Drain())
    other.close()
    await asyncio.sleep(0)
    assert [end.ends for end in ends] == [1, 1]
    assert [end.messages for end in ends] == [[], []]


async def test_nonsense_ends_the_connection():
    ours, theirs = socket.socketpair()
    end = End(await connect(ours))
    theirs.sendall((5).to_bytes(4, "little") + b"hello")
    await asyncio.wait_for(end.over.wait(), 5)
    assert end.messages == []
    theirs.close()
