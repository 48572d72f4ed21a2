"""`GET .../models`: the provider's own list, without what the caller could not call.

What is dropped: models the key may not use, and those without a price. Everything else stays in
the provider's bytes and order, so every dialect keeps its shape; a list of which nothing is
dropped, and whatever is no such list, is passed on as it is.
"""

import msgspec

from proxy.call import Call
from proxy.client import Headers
from proxy.decoding import decoder
from proxy.forward import ReplyHead
from proxy.upstream import Exchange
from proxy.watch import whole

LISTS = (("data", "id"), ("models", "name"))  # OpenAI's and Anthropic's; Gemini's
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


def lists_models(call: Call) -> bool:
    """Whether the reply of a free route is such a list."""
    return call.client.method == "GET" and call.path.endswith(b"/models")


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
        for field, name in LISTS:
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
    model = str(msgspec.json.decode(name)).removeprefix("models/")
    model = provider.models.get(model, model)
    if not principal.allows_model(model):
        return False
    prices = call.state.prices.for_key(principal.key)
    return prices.find(provider.prices, *provider.price_names(model)) is not None
