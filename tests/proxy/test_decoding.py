"""Decoded copies for the meter: any cut of the bytes, and never an exception."""

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.decoding import decoder

TEXT = b'data: {"usage":{"prompt_tokens":12}}\n\n' * 20


def raw_deflate(data: bytes) -> bytes:
    compress = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compress.compress(data) + compress.flush()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", [b"", b"identity", b" Identity "])
def test_nothing_to_decode(name: bytes) -> None:
    assert decoder(name) is None


@given(st.lists(st.integers(0, 10**6), max_size=8), st.sampled_from(["gzip", "zlib"]))
def test_every_cut(cuts: list[int], form: str) -> None:
    encoded = gzip.compress(TEXT) if form == "gzip" else zlib.compress(TEXT)
    decode = decoder(b"gzip" if form == "gzip" else b"deflate")
    assert decode is not None
    assert b"".join(decode.decode(p) for p in pieces(encoded, cuts)) == TEXT


def test_deflate_without_its_header() -> None:
    decode = decoder(b"deflate")
    assert decode is not None
    encoded = raw_deflate(TEXT)
    assert decode.decode(encoded[:7]) + decode.decode(encoded[7:]) == TEXT


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_garbage_reads_as_nothing(garbage: list[bytes]) -> None:
    decode = decoder(b"gzip")
    assert decode is not None
    for piece in garbage:
        assert isinstance(decode.decode(piece), bytes)


def test_an_unknown_encoding_is_opaque() -> None:
    decode = decoder(b"br")
    assert decode is not None
    assert decode.decode(TEXT) == b""
