"""What can go wrong between Tollkeeper and a provider.

    UpstreamError
        Unreachable       no connection: DNS, refused, TLS, a proxy's no
        UpstreamTimeout   the provider took too long: connect, first_byte or idle
        UpstreamBroken    the connection was lost, or what came is not HTTP
        Aborted           we gave the exchange up ourselves

Every foreign exception (sockets, ssl, httptools) is mapped to one of these at this edge.
"""

from typing import Literal

TimeoutKind = Literal["connect", "first_byte", "idle"]


class UpstreamError(Exception):
    """`sent`: some of the request may have reached the provider; `answered`: at least one byte of
    an answer came back. Charge rules need both."""

    def __init__(self, message: str, *, sent: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.answered = answered


class Unreachable(UpstreamError):
    """There was no connection to send the request on."""


class UpstreamTimeout(UpstreamError):
    """Nothing came for as long as the setting behind `kind` allows."""

    def __init__(self, kind: TimeoutKind, *, sent: bool = False, answered: bool = False) -> None:
        super().__init__(f"{kind.replace('_', ' ')} timeout", sent=sent, answered=answered)
        self.kind: TimeoutKind = kind


class UpstreamBroken(UpstreamError):
    """The connection ended before the answer did, or the answer is not HTTP/1.1."""


class Aborted(UpstreamError):
    """`Exchange.abort()` or `Pool.close()` ended the exchange while somebody waited for it."""
