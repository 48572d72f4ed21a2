"""A request's headers, read once: what goes on, what is ours, what decides the route.

One pass with one dictionary look-up a header; everything later on the path works from this.
"""

from proxy.client import Headers

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
# The headers in which SDKs send a credential. All of them are taken off before forwarding.
CREDENTIAL_HEADERS = frozenset(
    [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-tollkeeper-key"]
)
DROPPED = (
    HOP_BY_HOP
    | CREDENTIAL_HEADERS
    | {b"host", b"expect", b"baggage", b"forwarded", b"accept-encoding", b"content-length"}
    | {b"x-http-method-override", b"x-http-method", b"x-method-override"}
    # of a client's own signature for Amazon
    | {b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256"}
)
_DROPPED_PREFIXES = (b"x-tollkeeper-", b"x-forwarded-")
_MARKS = frozenset([b"anthropic-version", b"content-type", b"x-stainless-retry-count"])
_KEEP, _NOTE, _DROP, _NOTE_AND_DROP = range(4)
_NAMES_MAX = 4096  # distinct header names remembered


class HeaderKinds:
    """What to do with a header, by its lower-case name; names once seen are remembered."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, int] = {}

    def __getitem__(self, name: bytes) -> int:
        kind = self._kinds.get(name)
        return kind if kind is not None else self._learn(name)

    def _learn(self, name: bytes) -> int:
        kind = _KEEP
        if name in DROPPED or name.startswith(_DROPPED_PREFIXES):
            noted = name in DROPPED or name.startswith(b"x-tollkeeper-")
            kind = _NOTE_AND_DROP if noted else _DROP
        elif name in _MARKS:
            kind = _NOTE
        if len(self._kinds) < _NAMES_MAX:
            self._kinds[name] = kind
        return kind

    @property
    def known(self) -> dict[bytes, int]:
        """The table itself, for the one loop where a method call per header counts."""
        return self._kinds


_KINDS = HeaderKinds()


class RequestHead:
    """The headers of one request.

    `lines`: those that go on, as "name: value", in their order. `noted`: those that mean something
    to us, by name, the first of each; several credentials are in `credentials`, in their order.
    """

    __slots__ = ("credentials", "lines", "noted", "own")

    def __init__(self, headers: Headers) -> None:
        self.lines: list[bytes] = []
        self.noted: dict[bytes, bytes] = {}
        self.credentials: Headers = []
        self.own: Headers = []  # x-tollkeeper-*
        known, lines = _KINDS.known, self.lines
        for name, value in headers:
            kind = known.get(name)
            if kind is None:
                kind = _KINDS[name]
            if kind == _KEEP:
                lines.append(name + b": " + value)
            elif kind != _DROP:
                self._note(name, value, kind)
        connection = self.noted.get(b"connection")
        if connection is not None and connection not in (b"keep-alive", b"close"):
            self._drop_named(connection)

    def _note(self, name: bytes, value: bytes, kind: int) -> None:
        if kind == _NOTE:
            self.lines.append(name + b": " + value)
        elif name in CREDENTIAL_HEADERS:
            self.credentials.append((name, value))
        elif name.startswith(b"x-tollkeeper-"):
            self.own.append((name, value))
        self.noted.setdefault(name, value)

    def _drop_named(self, connection: bytes) -> None:
        """Headers that a `connection` header declares hop-by-hop."""
        named = tuple(token.strip() + b":" for token in connection.lower().split(b",") if token)
        self.drop(named)

    def drop(self, names: tuple[bytes, ...]) -> None:
        """Headers that do not go on, by names that end in ":"."""
        self.lines = [line for line in self.lines if not line.startswith(names)]
