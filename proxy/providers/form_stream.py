"""A multipart form read as it comes, sans-IO: bytes in, in any pieces; what is in its parts out.

What is held is at most the head of a part, or a delimiter that may begin. What two parsers might
read differently is refused, as in `forms`.
"""

import re

from proxy.providers.forms import BOUNDARY, DISPOSITION
from proxy.providers.requests import bad

HEAD_BYTES_MAX = 2**14
PARTS_MAX = 64


class Piece:
    """Of one part: its next bytes. `file`: it has a file name."""

    __slots__ = ("data", "file", "first", "name")

    def __init__(self, name: str, file: bool, data: bytes, first: bool) -> None:
        self.name = name
        self.file = file
        self.data = data
        self.first = first  # the part begins


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary a content type names; None: it is no form's."""
    found = BOUNDARY.fullmatch(content_type)
    return (found[1] or found[2]) if found else None


class FormStream:
    """`complete` once the form's own end was read."""

    def __init__(self, boundary: bytes) -> None:
        self.complete = False
        self._delimiter = b"\r\n--" + boundary
        self._held = bytearray(b"\r\n")  # the first delimiter is one like the others
        self._in_head = True  # behind a delimiter, up to the end of the part's head
        self._fresh = False  # at the first byte of a part
        self._started = False
        self._parts = 0
        self._name, self._file = "", False

    def feed(self, data: bytes) -> list[Piece]:
        """Raises Refusal `bad_request`."""
        pieces: list[Piece] = []
        if self.complete:
            return pieces
        self._held += data
        if not self._started and not self._start():
            return pieces
        while self._head(pieces) if self._in_head else self._body(pieces):
            pass
        return pieces

    def _start(self) -> bool:
        length = len(self._delimiter)
        if not self._delimiter.startswith(self._held[:length]):
            raise bad("the form does not begin with the boundary its content-type names")
        if len(self._held) < length:
            return False
        del self._held[:length]
        self._started = True
        return True

    def _head(self, pieces: list[Piece]) -> bool:
        """Read on behind a delimiter; False: more bytes are needed, or none is left."""
        held = self._held
        if len(held) < 2:
            return False
        if held.startswith(b"--"):
            self.complete = True
            held.clear()
            return False
        if not held.startswith(b"\r\n"):
            raise bad("the form's boundary is also part of its content")
        end = held.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(held) > HEAD_BYTES_MAX:
                raise bad("a part of the form has a head that is too long")
            return False
        self._begin(bytes(held[2:end]))
        del held[: end + 4]
        self._in_head, self._fresh = False, True
        pieces.append(Piece(self._name, self._file, b"", first=True))
        return True

    def _begin(self, head: bytes) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise bad(f"the form has more than {PARTS_MAX} parts")
        dispositions: list[re.Match[bytes] | None] = []
        for line in head.split(b"\r\n"):
            if line[:20].lower() == b"content-disposition:":
                dispositions.append(DISPOSITION.fullmatch(line))
            elif line[:26].lower() == b"content-transfer-encoding:":
                raise bad("a part of the form has a transfer encoding: send it as it is")
        if len(dispositions) != 1 or dispositions[0] is None:
            raise bad('a part of the form lacks `content-disposition: form-data; name="..."`')
        self._name = dispositions[0][1].decode("utf-8", "replace")
        self._file = dispositions[0][2] is not None

    def _body(self, pieces: list[Piece]) -> bool:
        """Pass on what cannot be part of a delimiter; False: more bytes are needed."""
        held, delimiter = self._held, self._delimiter
        if self._fresh:
            line = delimiter[2:]
            if held.startswith(line):  # the end of an empty part, or a part's first line?
                raise bad("a part of the form begins with the boundary")
            if line.startswith(held):
                return False
            self._fresh = False
        end = held.find(delimiter)
        if end < 0:
            keep = len(delimiter) - 1
            # A delimiter begins with a carriage return: the last of them may be one.
            at = held.find(b"\r", max(0, len(held) - keep))
            end = len(held) if at < 0 else at
            self._pass(pieces, end)
            return False
        self._pass(pieces, end)
        del held[: len(delimiter)]
        self._in_head = True
        return True

    def _pass(self, pieces: list[Piece], end: int) -> None:
        if end:
            pieces.append(Piece(self._name, self._file, bytes(self._held[:end]), first=False))
            del self._held[:end]
