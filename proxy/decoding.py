"""Decoded copies of replies that are compressed although identity was asked for.

The client gets the bytes as they came; only the meter reads the decoded copy.
"""

import zlib
from typing import Protocol


class Decoder(Protocol):
    """Turns encoded bytes into decoded ones, piece by piece; b"" once it has failed."""

    def decode(self, data: bytes) -> bytes:
        """Decode the next piece."""


class ZlibDecoder:
    """gzip and deflate (with and without the zlib header)."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._failed = False
        self._first = True

    def decode(self, data: bytes) -> bytes:
        if self._failed:
            return b""
        try:
            decoded = self._inflate.decompress(data)
        except zlib.error:
            decoded = self._raw_deflate(data)
        self._first = False
        return decoded

    def _raw_deflate(self, data: bytes) -> bytes:
        """Some servers send "deflate" without its header; that shows at the first bytes only."""
        self._failed = not self._first
        if self._failed:
            return b""
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return self._inflate.decompress(data)
        except zlib.error:
            self._failed = True
            return b""


class Undecodable:
    """An encoding we cannot read: the meter sees nothing and the cost is estimated."""

    def decode(self, data: bytes) -> bytes:
        return b""


def decoder(content_encoding: bytes) -> Decoder | None:
    """The decoder for a reply, None when there is nothing to decode."""
    encoding = content_encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return None
    if encoding in (b"gzip", b"x-gzip", b"deflate"):
        return ZlibDecoder()
    return Undecodable()
