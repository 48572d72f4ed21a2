import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.event_stream import (
    MESSAGE_BYTES_MAX,
    Messages,
    message,
    payload,
    text_headers,
)
from tests.cuts import cut, offsets

texts = st.text(max_size=20)
names = st.text("abcdefghijklmnopqrstuvwxyz:-", min_size=1, max_size=20)
events = st.lists(
    st.tuples(st.dictionaries(names, texts, max_size=4), st.binary(max_size=200)), max_size=6
)


@given(events, offsets())
def test_any_cutting_gives_the_same_messages(
    expected: list[tuple[dict[str, str], bytes]], at: list[int]
) -> None:
    stream = b"".join(message(headers, body) for headers, body in expected)
    splitter = Messages()

    found = [one for piece in cut(stream, at) for one in splitter.feed(piece)]

    assert [(text_headers(one), payload(one)) for one in found] == expected
    assert not splitter.broken


@given(st.dictionaries(names, texts, max_size=4), st.binary(max_size=200))
def test_botocore_reads_what_is_written_here(headers: dict[str, str], body: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(message(headers, body))
    (read,) = list(buffer)
    assert (read.headers, read.payload) == (headers, body)


@given(st.binary(max_size=300), offsets())
def test_nonsense_is_read_as_nothing_and_raises_nothing(data: bytes, at: list[int]) -> None:
    whole, pieces = Messages(), Messages()
    found = whole.feed(data)
    assert found == [one for piece in cut(data, at) for one in pieces.feed(piece)]
    assert whole.broken == pieces.broken
    for one in found:
        text_headers(one)


@given(offsets())
def test_a_message_beyond_the_limit_is_passed_over(at: list[int]) -> None:
    small = message({":event-type": "metadata"}, b"{}")
    large = message({}, bytes(MESSAGE_BYTES_MAX))
    splitter = Messages()
    held = []

    found = []
    for piece in cut(small + large + small, at):
        found += splitter.feed(piece)
        held.append(len(splitter._held))

    assert found == [small, small]
    assert max(held) < len(small)


@pytest.mark.parametrize(
    "prelude",
    [
        b"\0\0\0\x0f\0\0\0\0",  # shorter than it can be
        b"\0\0\0\x20\0\0\0\x11",  # headers longer than all of it
        b'{"message":"no stream"}',
        b"data: {}\n\n",
    ],
)
def test_what_is_no_event_stream_ends_the_reading(prelude: bytes) -> None:
    splitter = Messages()
    assert splitter.feed(prelude + bytes(12)) == []
    assert splitter.broken
    assert splitter.feed(message({}, b"{}")) == []


def test_headers_of_every_type_are_skipped_over() -> None:
    block = b"".join(
        (
            b"\x01a\x00",  # true
            b"\x01b\x01",  # false
            b"\x01c\x02\xff",
            b"\x01d\x03\0\x01",
            b"\x01e\x04\0\0\0\x01",
            b"\x01f\x05\0\0\0\0\0\0\0\x01",
            b"\x01g\x06\0\x02xy",
            b"\x01h\x08\0\0\0\0\0\0\0\x01",
            b"\x01i\x09" + bytes(16),
            b"\x01j\x07\0\x02ok",
        )
    )
    head = (16 + len(block)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    (one,) = Messages().feed(head + bytes(4) + block + bytes(4))
    assert text_headers(one) == {"j": "ok"}
    assert payload(one) == b""


def test_a_header_of_no_known_type_ends_the_headers() -> None:
    block = b"\x01a\x0a" + b"\x01j\x07\0\x02ok"
    head = (16 + len(block)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    (one,) = Messages().feed(head + bytes(4) + block + bytes(4))
    assert text_headers(one) == {}
