"""A cheaper model in place of one a budget cannot pay any more (`on_exhausted: downgrade`).

Only the name of the model is exchanged, byte by byte: the value of the body's `model`, or the
model in the path where the API names it there. Where that is not possible the request stays as
it is.
"""

import json
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple
from urllib.parse import quote

from proxy.arrival import Arrival
from proxy.call import Call
from proxy.errors import Refusal
from proxy.principal import RESERVED_TAG
from proxy.providers.base import Facts
from proxy.wire import BudgetEntry

BODY_BYTES_MAX = 4 * 2**20  # of a request that is read once more
TAG = f"{RESERVED_TAG}downgraded_from"
_GOOGLE = re.compile(rb"(.*/models/)[^/:]+(:[A-Za-z]+)\Z")
_IN_PATH = {  # by dialect: what is before and behind the name
    "gemini": _GOOGLE,
    "vertex": _GOOGLE,
    "bedrock": re.compile(rb"(.*/model/)[^/]+(/[a-z-]+)\Z"),
    "azure": re.compile(rb"(.*/deployments/)[^/]+(/.+)\Z"),
}
_SPACE = re.compile(r"[ \t\n\r]*")
_decode_value = json.JSONDecoder().raw_decode


class Rewritten(NamedTuple):
    """The request, for another model."""

    facts: Facts
    body: bytes
    path: bytes


def cheaper(call: Call, budget: BudgetEntry) -> Rewritten | None:
    """The request for the model that `budget` names in place of the one asked for. None: it names
    none, the caller may not use it, it has no price, or the request cannot be rewritten."""
    arrival, facts = call.arrival, call.facts
    assert arrival is not None
    assert facts is not None
    provider = arrival.provider
    target = target_of(budget, facts.model)
    if not target or facts.later == "batch" or len(call.body) > BODY_BYTES_MAX:
        return None
    body, path = rewritten(arrival.dialect.name, call.body, arrival.path, target)
    try:
        found = arrival.dialect.facts(arrival.route, path.decode("ascii"), arrival.query, body)
    except (Refusal, UnicodeDecodeError):
        return None
    if provider.headers is not None:
        provider.headers.request_headers(found, call.head.lines)
    found.model = provider.models.get(found.model, found.model)
    wanted = provider.models.get(target, target)
    if found.model != wanted or wanted == facts.model:  # something else names the model
        return None
    if not arrival.principal.allows_model(wanted):
        return None
    prices = call.state.prices.for_key(arrival.principal.key)
    price = prices.find(provider.prices, *provider.price_names(wanted))
    return None if price is None or price.unpriced else Rewritten(found, body, path)


def target_of(budget: BudgetEntry, model: str) -> str:
    """The model in place of this one; "": there is none. The first glob that matches counts."""
    name = model.lower()
    for glob, target in budget.downgrade:
        if fnmatchcase(name, glob.lower()):
            return "" if target.lower() == name else target
    return ""


def rewritten(dialect: str, body: bytes, path: bytes, model: str) -> tuple[bytes, bytes]:
    """Body and path of a request for another model, where they can name it."""
    found = _IN_PATH[dialect].match(path) if dialect in _IN_PATH else None
    if found is not None:
        return body, found[1] + quote(model, safe="@").encode() + found[2]
    return with_model(body, model), path


def with_model(body: bytes, model: str) -> bytes:
    """The JSON object with another value of its `model`, all other bytes as they are; the body
    itself where there is not exactly one."""
    try:
        text = body.decode()
        spans = [span for key, span in _members(text) if key == "model"]
    except (ValueError, StopIteration, IndexError, RecursionError):
        return body
    if len(spans) != 1 or text[spans[0][0]] != '"':
        return body
    start, end = spans[0]
    return (text[:start] + json.dumps(model) + text[end:]).encode()


def _members(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Keys of an object and where their values are. Raises ValueError and others for no object."""
    found: list[tuple[str, tuple[int, int]]] = []
    at = _skip(text, 0)
    if text[at] != "{":
        raise ValueError("no object")
    at = _skip(text, at + 1)
    while text[at] == '"':
        key, at = _decode_value(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("no colon")
        start = _skip(text, at + 1)
        _, end = _decode_value(text, start)
        found.append((key, (start, end)))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


_CHANGED = ("facts", "body", "path", "arrival", "own", "clamped", "price", "downgraded_from")


class Downgrade:
    """A call with another model, for as long as it is not undone."""

    def __init__(self, call: Call, rewritten: Rewritten) -> None:
        self._call = call
        self._before = {name: getattr(call, name) for name in _CHANGED}
        assert call.facts is not None
        assert call.own is not None
        model = call.facts.model
        call.downgraded_from, call.clamped = model, None
        call.own = replace(call.own, tags=call.own.tags | {TAG: model[:128]})
        call.facts, call.body = rewritten.facts, rewritten.body
        if rewritten.path != call.path:
            call.path = rewritten.path
            call.arrival = Arrival(call)  # of this call alone: the connection keeps its own

    def undo(self) -> None:
        for name, value in self._before.items():
            setattr(self._call, name, value)
