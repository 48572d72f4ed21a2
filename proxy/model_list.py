"""`GET .../models`, or where a dialect has it: the provider's own list, without what the caller
could not call.

What is dropped: models the key may not use, and those without a price. Everything else stays in
the provider's bytes and order, so every dialect keeps its shape; a list of which nothing is
dropped, and whatever is no such list, is passed on as it is.
"""

import re

import msgspec

from proxy.call import Call
from proxy.client import Headers
from proxy.decoding import decoder
from proxy.forward import ReplyHead
from proxy.providers.base import ListDialect
from proxy.upstream import Exchange
from proxy.watch import whole

# Where most dialects have their lists: OpenAI's and Anthropic's; Gemini's.
LISTS = (("/models", "data", "id"), ("/models", "models", "name"))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_without_place = re.compile(r"\A(?:publishers/[^/]+/)?models/").sub  # Google's "models/NAME"
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


def lists_models(call: Call) -> bool:
    """Whether the reply of a free route is such a list."""
    return call.client.method == "GET" and bool(_lists(call))


def _lists(call: Call) -> list[tuple[str, str]]:
    """At this path: the lists a reply may have, and what names a model in them."""
    own = call.dialect.model_lists if isinstance(call.dialect, ListDialect) else ()
    path = call.path.decode("latin-1")
    return [(field, name) for end, field, name in (*own, *LISTS) if path.endswith(end)]


class ModelList:
    """One exchange."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def feed_request(self, data: bytes) -> None:
        """A GET has nothing to say."""

    async def relay(self, exchange: Exchange, headers: Headers) -> None:
        """Pass a reply with status 200 on. `headers` are those for the client."""
        body = await whole(exchange)
        decode = decoder(ReplyHead(exchange.headers).content_encoding)
        plain = body if decode is None else decode.decode(body)
        kept = filtered(self._call, plain)
        if kept is not plain:
            body, dropped = kept, (b"content-length", b"content-encoding")
            headers = [header for header in headers if header[0] not in dropped]
        else:
            headers = [header for header in headers if header[0] != b"content-length"]
        await self._call.client.answer(exchange.status, headers, body)


def filtered(call: Call, body: bytes) -> bytes:
    """The list without what the caller could not call; the same object if nothing is dropped."""
    try:
        members = _members(body)
        for field, name in _lists(call):
            if field in members:
                items = _items(members[field])
                kept = [item for item in items if _callable(call, _members(item).get(name))]
                if len(kept) == len(items):
                    return body
                members[field] = msgspec.Raw(_encode(kept))
                return _encode(members)
    except msgspec.MsgspecError:
        pass
    return body


def _callable(call: Call, name: msgspec.Raw | None) -> bool:
    """Whether the caller could call a model of this name; what has none stays."""
    provider, principal = call.provider, call.principal
    assert provider is not None
    assert principal is not None
    if name is None:
        return True
    model = _without_place("", str(msgspec.json.decode(name)))
    model = provider.models.get(model, model)
    if not principal.allows_model(model):
        return False
    prices = call.state.prices.for_key(principal.key)
    return prices.find(provider.prices, *provider.price_names(model)) is not None
