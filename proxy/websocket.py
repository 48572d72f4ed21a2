"""WebSocket frames, read off a copy of what is passed on (RFC 6455).

    frames = Frames(masked=True, message_bytes_max=...)
    for piece in frames.feed(data):
        piece.raw        # the frame as it came: what goes on
        piece.message    # where it ends a message: all of it, unmasked; else None
    frames.fault         # why nothing more is read: the peer does not keep to the protocol

Nothing is compressed here, since no extension is ever agreed on. Only workers that have such
connections import this: the parser is that of `websockets`.
"""

from collections.abc import Generator
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.streams import StreamReader

CONTROL_FRAME_BYTES_MAX = 125
_FRAME_HEAD_BYTES = 14  # at most
_CONTROL = frozenset((Opcode.CLOSE, Opcode.PING, Opcode.PONG))


class Fault(NamedTuple):
    """What a peer did wrong, as a close frame says it."""

    code: int
    reason: str


class Piece(NamedTuple):
    """One frame."""

    raw: bytes
    opcode: int
    message: bytes | None = None  # all of the message of data that ends with this frame
    text: bool = False  # that message is text

    @property
    def is_control(self) -> bool:
        return self.opcode in _CONTROL

    @property
    def is_close(self) -> bool:
        return self.opcode == Opcode.CLOSE


class Frames:
    """What one peer sends. `masked`: it is a client."""

    def __init__(self, *, masked: bool, message_bytes_max: int) -> None:
        self.fault: Fault | None = None
        self._masked = masked
        self._bytes_max = message_bytes_max
        self._stream = StreamReader()
        self._parts: list[bytes | bytearray] = []  # of the frame being read
        self._ready: list[Piece] = []
        self._message: bytearray | None = None  # what has come of a message in several frames
        self._message_is_text = False
        self._message_bytes = 0  # of it, heads of frames included
        self._parser = self._parse()

    @property
    def between_messages(self) -> bool:
        """Whether another message could be put behind the last frame."""
        return self._message is None

    def feed(self, data: bytes) -> list[Piece]:
        """Take bytes, in any pieces; the frames that end in them."""
        if self.fault is None:
            self._stream.feed_data(data)
            try:
                next(self._parser)
            except PayloadTooBig:
                self._fail(CloseCode.MESSAGE_TOO_BIG, "a message is too large")
            except ProtocolError as exc:
                self._fail(CloseCode.PROTOCOL_ERROR, str(exc))
        ready, self._ready = self._ready, []
        return ready

    def _fail(self, code: int, reason: str) -> None:
        self.fault = Fault(code, reason)
        self._stream.discard()
        self._message = None

    def _parse(self) -> Generator[None, None, None]:
        while True:
            self._parts = []
            room = self._bytes_max - self._message_bytes
            frame = yield from Frame.parse(
                self._read_exact, mask=self._masked, max_size=max(room, CONTROL_FRAME_BYTES_MAX)
            )
            self._ready.append(self._piece(frame, b"".join(self._parts)))

    def _read_exact(self, count: int) -> Generator[None, None, bytes | bytearray]:
        part = yield from self._stream.read_exact(count)
        self._parts.append(part)
        return part

    def _piece(self, frame: Frame, raw: bytes) -> Piece:
        opcode = frame.opcode
        if opcode in _CONTROL:
            return Piece(raw, opcode)
        if (opcode == Opcode.CONT) == (self._message is None):
            raise ProtocolError("a message begins before the one before it ends, or in its middle")
        if self._message is None:
            self._message_is_text = opcode == Opcode.TEXT
            if frame.fin:
                return Piece(raw, opcode, bytes(frame.data), self._message_is_text)
            self._message = bytearray()
        self._message += frame.data
        self._message_bytes += len(frame.data) + _FRAME_HEAD_BYTES
        if self._message_bytes > self._bytes_max:
            raise PayloadTooBig(self._message_bytes, self._bytes_max)
        if not frame.fin:
            return Piece(raw, opcode)
        message, self._message, self._message_bytes = bytes(self._message), None, 0
        return Piece(raw, opcode, message, self._message_is_text)


def text_frame(message: bytes, *, masked: bool = False) -> bytes:
    """A frame of our own. `masked`: we are the client."""
    return Frame(Opcode.TEXT, message).serialize(mask=masked)


def close_frame(code: int, reason: str = "", *, masked: bool = False) -> bytes:
    """The frame that ends a connection; of the reason what fits."""
    room = CONTROL_FRAME_BYTES_MAX - 2
    text = reason.encode()[:room].decode("utf-8", "ignore")
    return Frame(Opcode.CLOSE, Close(code, text).serialize()).serialize(mask=masked)
