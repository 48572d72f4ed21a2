import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import (
    EVENT_BYTES_MAX,
    TAIL_BYTES,
    ArrayElements,
    EventBlocks,
    event_data,
    first_event_end,
    last_event_end,
)
from tests.cuts import cut, offsets


def split_events(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = EventBlocks()
    blocks = [block for piece in pieces if (block := splitter.feed(piece))]
    return blocks, splitter.finish()


def split_array(pieces: list[bytes]) -> list[bytes]:
    splitter = ArrayElements()
    return [element for piece in pieces for element in splitter.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"event: x\nid: 1\ndata: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\nevent: x\n\n", [b"a"]),
        (b": comment\n\ndata:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data\n\n", []),
        (b"\n\n\n\n", []),
    ],
)
def test_event_data_follows_the_format(stream: bytes, data: list[bytes]) -> None:
    blocks, rest = split_events([stream])
    assert [d for block in blocks for d in event_data(block)] == data
    assert rest == b""


def test_whole_events_pass_as_the_same_object() -> None:
    piece = b"data: a\n\ndata: b\n\n"
    assert EventBlocks().feed(piece) is piece


line = st.sampled_from([b"data: x", b"data: {}", b"event: e", b": ping", b"data:", b"id: 7"])
events = st.lists(st.lists(line, min_size=1, max_size=3), max_size=8)


@given(events, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.binary(max_size=20), offsets())
def test_events_do_not_depend_on_the_cuts(
    parts: list[list[bytes]], end: bytes, tail: bytes, at: list[int]
) -> None:
    stream = b"".join(end.join(lines) + end + end for lines in parts) + b"data: tail"
    stream += tail.translate(None, b"\r\n")
    whole_blocks, whole_rest = split_events([stream])
    blocks, rest = split_events(cut(stream, at))
    assert b"".join(blocks) + rest == stream
    assert rest == whole_rest
    expected = [data for block in whole_blocks for data in event_data(block)]
    assert [data for block in blocks for data in event_data(block)] == expected


@given(st.binary(max_size=40).map(lambda b: bytes(b"\r\na"[x % 3] for x in b)))
def test_event_ends_bracket_all_events(data: bytes) -> None:
    first, last = first_event_end(data), last_event_end(data)
    assert first <= last
    assert bool(first) == bool(last)
    assert last_event_end(data, last) == 0


def test_of_a_huge_event_the_end_is_kept() -> None:
    splitter = EventBlocks()
    assert splitter.feed(b"data: " + b"x" * (EVENT_BYTES_MAX + 1)) == b""
    assert splitter.feed(b"y" * 10) == b""
    block = splitter.feed(b"the end\n\ndata: next\n\n")
    first, second = event_data(block)
    assert first.endswith(b"y" * 10 + b"the end")
    assert len(first) < TAIL_BYTES + 100
    assert second == b"next"


values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab"\\{}[],:é', max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('x"}', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
documents = st.lists(st.dictionaries(st.text(max_size=3), values, max_size=4), max_size=5)


@given(documents, st.sampled_from([None, 1]), st.sampled_from([",", "\n,\r\n"]), offsets())
def test_array_elements_do_not_depend_on_the_cuts(
    objects: list[dict[str, object]], indent: int | None, comma: str, at: list[int]
) -> None:
    text = "[" + comma.join(json.dumps(o, indent=indent) for o in objects) + "\n]"
    for pieces in (cut(text.encode(), at), [text.encode()[i : i + 1] for i in range(len(text))]):
        assert [json.loads(element) for element in split_array(pieces)] == objects


def test_array_elements_arriving_one_by_one() -> None:
    pieces = [b'[{"a": 1}', b',\r\n{"b": "}"}\n', b',\r\n{"c": [{}]}', b"\n]"]
    assert split_array(pieces) == [b'{"a": 1}', b'{"b": "}"}', b'{"c": [{}]}']


def test_a_lone_object_is_an_array_of_one() -> None:
    assert split_array([b' {"a"', b": {}}\n"]) == [b'{"a": {}}']


def test_an_unfinished_element_is_not_one() -> None:
    splitter = ArrayElements()
    assert splitter.feed(b'[{"a": 1}, {"b": "') == [b'{"a": 1}']
    assert splitter.finish() == b'{"b": "'


def test_of_a_huge_element_the_end_is_kept() -> None:
    splitter = ArrayElements()
    assert splitter.feed(b'[{"image": "' + b"x" * (EVENT_BYTES_MAX + 1)) == []
    assert splitter.feed(b"y" * EVENT_BYTES_MAX) == []
    (element,) = splitter.feed(b'", "usageMetadata": {"a": 1}}')
    assert element.endswith(b'yyy", "usageMetadata": {"a": 1}}')
    assert len(element) < TAIL_BYTES + 100
    assert splitter.feed(b',{"next": 1}]') == [b'{"next": 1}']


@given(st.binary(max_size=60).map(lambda b: bytes(b'[{"\\}] ,a'[x % 9] for x in b)), offsets())
def test_nonsense_is_survived(data: bytes, at: list[int]) -> None:
    assert all(element in data for element in split_array(cut(data, at)))
    blocks, rest = split_events(cut(data, at))
    assert b"".join(blocks) + rest == data
