"""`GET /tollkeeper/v1/me`: what a key's own caller may know of itself and of its budgets."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy.auth import credentials
from proxy.budget_refusals import number
from proxy.budgets import Budgets
from proxy.client import AsgiClient
from proxy.errors import Refusal
from proxy.principal import own_headers
from proxy.request_head import RequestHead
from proxy.scopes import Principal, scopes_of
from proxy.slices import Slice
from proxy.state import State
from proxy.windows import FOREVER
from proxy.wire import BudgetEntry

ASK_S = 1.0  # for what this worker does not know of a window yet
POLL_S = 0.02
_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_encode = msgspec.json.Encoder().encode


async def answer_me(client: AsgiClient, state: State, budgets: Budgets, now_s: float) -> None:
    """Answer one request. Nothing of it is counted or stored."""
    try:
        if client.method not in ("GET", "HEAD"):
            raise Refusal("unknown_route", f"{client.method} /tollkeeper/v1/me is no route.")
        principal = _caller(client, state, now_s)
        status, body = 200, await about(principal, budgets, now_s)
    except Refusal as refusal:
        status = refusal.status
        body = {"error": {"code": refusal.code, "message": refusal.message}}
    await client.answer(status, list(_JSON), _encode(body))


def _caller(client: AsgiClient, state: State, now_s: float) -> Principal:
    """Whose key this is; `x-tollkeeper-user` and `-project` count as in any call. Raises
    Refusal."""
    head = RequestHead(client.headers)
    key = state.keyring.authenticate(credentials(head, client.query), now_s)
    own = own_headers(head)
    return Principal.of(key, own.user, own.project, state.projects, own.customer)


async def about(principal: Principal, budgets: Budgets, now_s: float) -> dict[str, Any]:
    """Key, scopes and budgets; figures of budgets as exact USD in text, or counts."""
    key = principal.key
    await budgets.meet(principal)
    entries = budgets.of(principal)
    slices = {entry.id: budgets.look(entry, now_s) for entry in entries}
    await _known([slice_ for slice_ in slices.values() if slice_ is not None])
    return {
        "key": key.name,
        "organization": key.organization,
        "team": key.team,
        "project": principal.project or None,
        "user": principal.user or None,
        "customer": principal.customer or None,
        "expires_at": _time(key.expires_at) if key.expires_at else None,
        "models": list(key.models),
        "providers": list(key.providers),
        "scopes": scopes_of(principal),
        "budgets": [_standing(entry, slices[entry.id]) for entry in entries],
    }


async def _known(slices: list[Slice]) -> None:
    """Wait until control has told of all of them, or for so long that it will not now."""
    for _ in range(int(ASK_S / POLL_S)):
        if all(slice_.room is not None for slice_ in slices):
            return
        await asyncio.sleep(POLL_S)


def _standing(entry: BudgetEntry, slice_: Slice | None) -> dict[str, Any]:
    """`spent` and what follows from it is null where it is not known, or the budget is a cap per
    request, which has no window."""
    known: dict[str, Any] = dict.fromkeys(("spent", "held", "remaining", "resets_at"))
    limit = entry.limit
    if slice_ is not None:
        known["held"] = number(entry, slice_.held)
        if slice_.ends_at < FOREVER:
            known["resets_at"] = _time(slice_.ends_at)
        if slice_.room is not None:
            spent = slice_.spent
            known["spent"] = number(entry, spent)
            known["remaining"] = number(entry, max(limit - spent, 0))
    customer = {"customer": entry.customer} if entry.customer else {}
    return {
        "scope": entry.scope,
        **customer,
        "period": entry.period,
        "unit": entry.unit,
        "models": list(entry.models),
        "providers": list(entry.providers),
        "enforced": entry.enforce,
        "limit": number(entry, limit),
        **known,
    }


def _time(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
