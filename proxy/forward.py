"""The request that goes to the provider: every edit of its head in one place.

Dropped: client credentials, hop-by-hop headers, `expect`, `x-forwarded-*`, `baggage`,
`x-tollkeeper-*`, and method overrides, which would turn a free route into another. Set: `host`,
one credential, `accept-encoding: identity`, `content-length`. Everything else, and the order of
it, stays as the client sent it.
"""

from proxy.client import Headers, split_lines
from proxy.request_head import HOP_BY_HOP, RequestHead

_FRAMING = HOP_BY_HOP | {b"content-length"}


def request_head(
    start: bytes, host: bytes, head: RequestHead, credential: bytes, framing: bytes
) -> bytes:
    """The head of the upstream request.

    `start` is "METHOD target"; `credential` and `framing` are ready header lines ("name: value"),
    or empty.
    """
    own = [start + b" HTTP/1.1", b"host: " + host, b"accept-encoding: identity"]
    if credential:
        own.append(credential)
    own += head.lines
    if framing:
        own.append(framing)
    own.append(b"\r\n")
    return b"\r\n".join(own)


def own_framing(head: RequestHead) -> bytes:
    """The client's own body framing, for bodies that are streamed through; b"" without a body."""
    length = head.noted.get(b"content-length")
    if length is not None:
        return b"content-length: " + length
    return b"transfer-encoding: chunked" if b"transfer-encoding" in head.noted else b""


def reply_headers(headers: Headers, *, keep_length: bool) -> Headers:
    """The provider's headers as the client gets them; framing is the server's own business."""
    dropped = HOP_BY_HOP if keep_length else _FRAMING
    return [header for header in headers if header[0] not in dropped]


class ReplyHead:
    """The head of a provider's answer, read once: what goes on, and what tells how to read it."""

    __slots__ = ("content_encoding", "content_type", "length", "lines")

    def __init__(self, headers: Headers) -> None:
        # Those that go on, but for a length, each after a line break.
        kept = [b": ".join(header) for header in headers if header[0] not in _FRAMING]
        self.lines = b"\r\n".join([b"", *kept])
        first = dict(headers[::-1]).get
        self.length = first(b"content-length")
        self.content_type = first(b"content-type", b"")
        self.content_encoding = first(b"content-encoding", b"")

    @property
    def headers(self) -> Headers:
        """The same by name and value."""
        return split_lines(self.lines)
