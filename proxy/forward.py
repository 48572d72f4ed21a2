"""The request that goes to the provider: every edit of its head in one place.

Dropped: client credentials, hop-by-hop headers, `expect`, `x-forwarded-*`, `baggage`,
`x-tollkeeper-*`, and method overrides, which would turn a free route into another. Set: `host`,
one credential, `accept-encoding: identity`, `content-length`. Everything else, and the order of
it, stays as the client sent it.
"""

from proxy.auth import CREDENTIAL_HEADERS

HOP_BY_HOP = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)
_DROPPED = (
    HOP_BY_HOP
    | CREDENTIAL_HEADERS
    | {b"host", b"expect", b"baggage", b"forwarded", b"accept-encoding", b"content-length"}
    | {b"x-http-method-override", b"x-http-method", b"x-method-override"}
)


def request_head(
    method: str,
    target: bytes,
    host: bytes,
    headers: list[tuple[bytes, bytes]],
    credential: bytes,
    body_bytes: int | None,
) -> bytes:
    """The head of the upstream request.

    `credential` is a ready header line ("name: value"), or empty; `body_bytes` None means the
    client's own framing is kept: its content-length, or chunked.
    """
    lines = [
        method.encode("ascii") + b" " + target + b" HTTP/1.1",
        b"host: " + host,
        b"accept-encoding: identity",
    ]
    if credential:
        lines.append(credential)
    named = connection_named(headers)
    for name, value in headers:
        if name in _DROPPED or name in named:
            continue
        if name[:2] == b"x-" and name.startswith((b"x-tollkeeper-", b"x-forwarded-")):
            continue
        lines.append(name + b": " + value)
    if body_bytes is not None:
        lines.append(b"content-length: %d" % body_bytes)
    else:
        lines += own_framing(headers)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def connection_named(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """Headers a `connection` header declares hop-by-hop, lower-cased."""
    for name, value in headers:
        if name == b"connection":
            lowered = value.lower()
            if lowered in (b"keep-alive", b"close"):
                return ()
            return tuple(token.strip() for token in lowered.split(b","))
    return ()


def own_framing(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The client's own body framing, for bodies that are streamed through."""
    for name, value in headers:
        if name == b"content-length":
            return [b"content-length: " + value]
        if name == b"transfer-encoding":
            return [b"transfer-encoding: chunked"]
    return []


def reply_headers(
    headers: list[tuple[bytes, bytes]], *, keep_length: bool
) -> list[tuple[bytes, bytes]]:
    """The provider's headers as the client gets them; framing is the server's own business."""
    return [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and (keep_length or name != b"content-length")
    ]
