"""Watched routes: free themselves, but their replies tell what other calls have used.

What was found is in the journal before the client has the end of the reply.
"""

from proxy.call import Call
from proxy.client import Headers
from proxy.decoding import decoder
from proxy.errors import Refusal
from proxy.forward import ReplyHead
from proxy.objects import Objects, account_of
from proxy.providers.base import WatchDialect, Watcher
from proxy.upstream import Exchange

EDITED_BYTES_MAX = 8 * 2**20


class Watch:
    """One exchange of a watched route."""

    def __init__(self, call: Call, watcher: Watcher, objects: Objects) -> None:
        self._call = call
        self._watcher = watcher
        self._objects = objects
        self._noted = False

    def feed_request(self, data: bytes) -> None:
        self._watcher.feed_request(data)

    async def relay(self, exchange: Exchange, headers: Headers) -> None:
        """Pass a reply with status 200 on. `headers` are those for the client."""
        reply = ReplyHead(exchange.headers)
        self._watcher.begin(reply.content_type.decode("latin-1"))
        decode = decoder(reply.content_encoding)
        if self._watcher.edits:
            await self._relay_edited(exchange, headers)
            return
        client = self._call.client
        await client.start(exchange.status, headers)
        while data := await exchange.read():
            self._watcher.feed(data if decode is None else decode.decode(data))
            if exchange.complete:
                self._note()
            await client.write(data)
        self._note()
        await client.end()

    async def _relay_edited(self, exchange: Exchange, headers: Headers) -> None:
        body = await whole(exchange)
        decode = decoder(ReplyHead(exchange.headers).content_encoding)
        if decode is not None:
            body = decode.decode(body)
        self._watcher.feed(body)
        self._note()
        dropped = (b"content-length", b"content-encoding")
        kept = [header for header in headers if header[0] not in dropped]
        edited = self._watcher.edited(body, self._base())
        await self._call.client.answer(exchange.status, kept, edited)

    def _note(self) -> None:
        if self._noted:
            return
        self._noted = True
        call = self._call
        assert call.provider is not None
        account = account_of(call.provider, call.credential)
        for found in self._watcher.found():
            self._objects.note(call.provider, account, found, call.at_ms)

    def _base(self) -> bytes:
        """This request's URL without its query, as the client reaches us."""
        client = self._call.client
        scheme = client.header(b"x-forwarded-proto") or b"http"
        host = client.header(b"x-forwarded-host") or client.header(b"host") or b""
        return (b"https://" if scheme == b"https" else b"http://") + host + client.raw_path


async def whole(exchange: Exchange) -> bytes:
    """Its body, up to EDITED_BYTES_MAX. Raises Refusal."""
    parts, size = [], 0
    while data := await exchange.read():
        parts.append(data)
        size += len(data)
        if size > EDITED_BYTES_MAX:
            raise Refusal(
                "upstream_unreachable",
                f"The provider's reply is larger than {EDITED_BYTES_MAX} bytes.",
                retry_after_s=60,
            )
    return b"".join(parts)


def watch_of(call: Call, objects: Objects | None) -> Watch | None:
    """None: there is nothing to read along."""
    route = call.route
    assert route is not None
    if objects is None or not route.watched or not isinstance(call.dialect, WatchDialect):
        return None
    path = call.path.decode("ascii", "replace")
    content_type = call.head.noted.get(b"content-type", b"")
    watcher = call.dialect.watcher(route, path, content_type)
    return Watch(call, watcher, objects) if watcher is not None else None
