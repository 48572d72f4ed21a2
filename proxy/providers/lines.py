"""JSON lines of files, sans-IO: bytes in, in any pieces; whole lines out.

Unlike a stream's, each of these lines counts: one that is too long to hold is said so, not cut.
"""

LINE_BYTES_MAX = 16 * 2**20


class LineTooLong(Exception):
    """The text says which line."""


class Lines:
    def __init__(self) -> None:
        self.number = 0  # of the line last returned
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, blank ones as well. Raises LineTooLong."""
        *whole, rest = data.split(b"\n")
        if whole and self._held:
            whole[0] = b"".join((*self._held, whole[0]))
            self._held, self._size = [], 0
        if rest:
            self._held.append(rest)
            self._size += len(rest)
            if self._size > LINE_BYTES_MAX:
                raise LineTooLong(f"line {self.number + len(whole) + 1} is longer than 16 MB")
        return whole

    def finish(self) -> bytes:
        """The last line, if it has no end of its own."""
        rest, self._held = b"".join(self._held), []
        return rest
