"""Multipart forms in pieces: the same parts, wherever the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refusal
from proxy.providers.form_stream import HEAD_BYTES_MAX, FormStream, boundary_of

FILE = b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: x/y'
FIELD = b'content-disposition: form-data; name="purpose"'


def form(*parts: tuple[bytes, bytes], end: bytes = b"--\r\n") -> bytes:
    made = b"".join(b"--b0\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts)
    return made + b"--b0" + end


def read(*pieces: bytes) -> tuple[list[tuple[str, bool, bytes]], bool]:
    """(name, file, content) of each part, and whether the form's end was read."""
    stream = FormStream(b"b0")
    parts: list[tuple[str, bool, bytes]] = []
    for piece in pieces:
        for found in stream.feed(piece):
            if found.first:
                parts.append((found.name, found.file, b""))
            name, file, content = parts[-1]
            assert (name, file) == (found.name, found.file)
            parts[-1] = (name, file, content + found.data)
    return parts, stream.complete


CONTENT = b"line\r\n--b\r\n--b1\r\r\n--\r\nend\r"
WHOLE = form((FILE, CONTENT), (FIELD, b"batch"))
PARTS = [("file", True, CONTENT), ("purpose", False, b"batch")]


def test_every_cut() -> None:
    assert read(WHOLE) == (PARTS, True)
    for at in range(len(WHOLE) + 1):
        assert read(WHOLE[:at], WHOLE[at:]) == (PARTS, True)
    assert read(*(WHOLE[at : at + 1] for at in range(len(WHOLE)))) == (PARTS, True)


@given(
    content=st.binary(max_size=60).filter(lambda data: b"--b0" not in data),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_any_content_in_any_pieces(content: bytes, cuts: list[int]) -> None:
    whole = form((FILE, content), (FIELD, b"batch"))
    at = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(at)]
    assert read(*pieces) == ([("file", True, content), ("purpose", False, b"batch")], True)


def test_an_incomplete_form_says_so() -> None:
    for at in range(len(WHOLE) - 4):
        assert not read(WHOLE[:at])[1]


@pytest.mark.parametrize(
    "body",
    [
        b"preamble\r\n" + WHOLE,
        form((b"content-type: x/y", b"no disposition")),
        form((FIELD + b"\r\n" + FIELD, b"two of them")),
        form((FIELD + b"\r\ncontent-transfer-encoding: base64", b"")),
        form((FIELD, b"x"), end=b"0\r\n"),
        b"--b0\r\n" + FIELD + b"\r\n\r\n--b0\r\n" + FILE + b"\r\n\r\n",
        b"--b0\r\n" + b"x" * (HEAD_BYTES_MAX + 1),
        form(*[(FIELD, b"x")] * 65),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        read(body)
    assert refusal.value.code == "bad_request"
    with pytest.raises(Refusal):
        read(*(body[at : at + 7] for at in range(0, len(body), 7)))


def test_boundaries() -> None:
    assert boundary_of(b"multipart/form-data; boundary=b0") == b"b0"
    assert boundary_of(b'multipart/form-data; boundary="b 0"') == b"b 0"
    assert boundary_of(b"application/json") is None


def test_little_is_held() -> None:
    stream = FormStream(b"b0")
    stream.feed(b"--b0\r\n" + FILE + b"\r\n\r\n")
    for _ in range(100):
        (piece,) = stream.feed(b"x" * 10_000)
        assert len(piece.data) == 10_000
