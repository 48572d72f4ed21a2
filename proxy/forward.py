"""The request that goes to the provider: every edit of its head in one place.

Dropped: client credentials, hop-by-hop headers, `expect`, `x-forwarded-*`, `baggage`,
`x-tollkeeper-*`, and method overrides, which would turn a free route into another. Set: `host`,
one credential, `accept-encoding: identity`, `content-length`. Everything else, and the order of
it, stays as the client sent it.
"""

from proxy.client import Headers
from proxy.request_head import HOP_BY_HOP, RequestHead

_NOTED = HOP_BY_HOP | {b"content-length", b"content-type", b"content-encoding"}


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
    return [
        header
        for header in headers
        if header[0] not in HOP_BY_HOP and (keep_length or header[0] != b"content-length")
    ]


class ReplyHead:
    """The head of a provider's answer, read once: what goes on, and what tells how to read it."""

    __slots__ = ("content_encoding", "content_type", "headers", "length")

    def __init__(self, headers: Headers) -> None:
        self.headers: Headers = []  # those that go on, but for a length
        self.length: bytes | None = None
        self.content_type = self.content_encoding = b""
        noted, passed = _NOTED, self.headers
        for header in headers:
            name = header[0]
            if name not in noted:
                passed.append(header)
            elif name == b"content-length":
                self.length = header[1]
            elif name not in HOP_BY_HOP:
                passed.append(header)
                if name == b"content-type":
                    self.content_type = self.content_type or header[1]
                else:
                    self.content_encoding = self.content_encoding or header[1]
