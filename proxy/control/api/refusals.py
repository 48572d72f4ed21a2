"""How often calls were refused, and why: of every host."""

from typing import Any

from msgspec import UNSET, UnsetType

from proxy.control.api.backend import Backend
from proxy.control.api.reports import Dimensions, Time, dimensions, given
from proxy.control.api.table import Caller, Endpoint, Request, Text
from proxy.control.identity import Role
from proxy.control.refused_rows import SINCE, refused_rows


class ListRefusals(Request, frozen=True, kw_only=True):
    """By any of organization, team, key, provider, model, code, scope and hour."""

    by: Dimensions = "code"
    since: Time = SINCE
    until: Time | UnsetType = UNSET
    organization: Text | UnsetType = UNSET
    team: Text | UnsetType = UNSET
    key: Text | UnsetType = UNSET
    provider: Text | UnsetType = UNSET
    model: Text | UnsetType = UNSET
    code: Text | UnsetType = UNSET
    scope: Text | UnsetType = UNSET


WHERE = tuple(
    name for name in ListRefusals.__struct_fields__ if name not in ("by", "since", "until")
)


async def list_refusals(
    backend: Backend, caller: Caller, asked: ListRefusals
) -> list[dict[str, Any]]:
    values = {name: getattr(asked, name) for name in WHERE}
    where = caller.identity.narrow({k: v for k, v in values.items() if v is not UNSET})
    by, times = dimensions(asked.by), (asked.since, given(asked.until))
    now_ms = backend.now_ms
    return await backend.read(lambda connection: refused_rows(connection, by, times, where, now_ms))


ENDPOINTS = (
    Endpoint(
        "GET", "/refusals", list_refusals, ListRefusals, list[dict[str, Any]], Role.VIEWER,
        "Refused calls of every host, counted by hour: by reason, team, key, model or budget.",
    ),
)  # fmt: skip
