"""Call ids: UUIDv7 (RFC 9562), time-ordered, so that rows and partitions are, too."""

import time
from random import SystemRandom

_random = SystemRandom()


class CallIds:
    """Makes call ids; random bits come from the system in blocks, to spare a call each."""

    def __init__(self) -> None:
        self._bits = b""
        self._next = 0

    def new(self, at_ms: int | None = None) -> bytes:
        """16 bytes: 48 bits of unix milliseconds, version, 74 random bits, variant."""
        if self._next >= len(self._bits):
            self._bits = _random.randbytes(2560)
            self._next = 0
        start = self._next
        self._next = start + 10
        random = self._bits[start : start + 10]
        if at_ms is None:
            at_ms = time.time_ns() // 1_000_000
        return (
            at_ms.to_bytes(6, "big")
            + bytes((0x70 | (random[0] & 0x0F), random[1], 0x80 | (random[2] & 0x3F)))
            + random[3:]
        )


def text(call_id: bytes) -> str:
    """The id as callers see it (`x-tollkeeper-request-id`): a UUID."""
    digits = call_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
