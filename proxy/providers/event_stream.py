"""Amazon's event stream encoding, sans-IO: bytes in, in any pieces; whole messages out.

A message is: its length and that of its headers (four bytes each, big-endian), the CRC of these,
the headers, the payload, the CRC of all before. Checksums are the reader's business: a meter reads
a copy, and what it misreads it reads as nothing.
"""

from struct import Struct
from zlib import crc32

MESSAGE_BYTES_MAX = 2**20  # a larger message is passed over: none with usage comes near
_PROTOCOL_BYTES_MAX = 2**25  # above it, it is not this encoding
_PRELUDE = Struct(">II")
_PRELUDE_BYTES = 12
_CRC_BYTES = 4
_LEAST = _PRELUDE_BYTES + _CRC_BYTES
_TEXT = 7  # the type of a header whose value is text
# Bytes of header values by type; those of types 6 and 7 follow a length of two bytes.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_SIZED = (6, 7)


class Messages:
    """Cuts a stream into messages. `broken`: the bytes are no event stream, nothing more is read.
    Holds at most one message of `MESSAGE_BYTES_MAX`."""

    __slots__ = ("_held", "_needed", "_skip", "broken")

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = _PRELUDE_BYTES  # bytes that must be there before it is worth looking
        self._skip = 0  # bytes left of a message that is passed over
        self.broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the messages they complete."""
        if self.broken:
            return []
        if self._skip:
            cut = min(self._skip, len(data))
            self._skip -= cut
            data = data[cut:]
        held = self._held
        if held or len(data) < self._needed:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        at, end = 0, len(data)
        self._needed = _PRELUDE_BYTES
        while end - at >= _PRELUDE_BYTES:
            total, headers = _PRELUDE.unpack_from(data, at)
            if not headers + _LEAST <= total <= _PROTOCOL_BYTES_MAX:
                self.broken = True
                return messages
            if total > MESSAGE_BYTES_MAX:
                self._skip = max(0, at + total - end)
            elif at + total > end:
                self._needed = total
                break
            else:
                messages.append(data[at : at + total])
            at += total
        self._held += data[at:]
        return messages


def payload(message: bytes) -> bytes:
    """The payload of a whole message."""
    headers = _PRELUDE.unpack_from(message)[1]
    return message[_PRELUDE_BYTES + headers : -_CRC_BYTES]


def text_headers(message: bytes) -> dict[str, str]:
    """The headers of a whole message whose values are text; nonsense ends them."""
    end = _PRELUDE_BYTES + _PRELUDE.unpack_from(message)[1]
    found: dict[str, str] = {}
    at = _PRELUDE_BYTES
    while at < end:
        name_end = at + 1 + message[at]
        if name_end >= end:
            break
        kind = message[name_end]
        start = name_end + 1
        size = _FIXED.get(kind)
        if kind in _SIZED:
            size = int.from_bytes(message[start : start + 2], "big")
            start += 2
        if size is None or start + size > end:
            break
        if kind == _TEXT:
            name = message[at + 1 : name_end].decode("utf-8", "replace")
            found[name] = message[start : start + size].decode("utf-8", "replace")
        at = start + size
    return found


def message(headers: dict[str, str], body: bytes) -> bytes:
    """A message with text headers, checksums included."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    block = b"".join(
        b"%c%b%c%b%b" % (len(name), name, _TEXT, len(value).to_bytes(2, "big"), value)
        for name, value in pairs
    )
    prelude = _PRELUDE.pack(len(block) + len(body) + _LEAST, len(block))
    front = prelude + crc32(prelude).to_bytes(4, "big") + block + body
    return front + crc32(front).to_bytes(4, "big")
