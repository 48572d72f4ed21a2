"""Keys: who has one. Admins make, rotate and revoke them; a secret is in one answer only."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import ValidationError, convert
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from db.catalog import list_keys, load_projects
from db.catalog_types import KeyListing
from db.errors import CatalogError
from db.paths import PATHS
from proxy.control.api import keys as api
from proxy.control.api.failures import ApiError
from proxy.control.api.table import ById, Done
from proxy.control.dashboard.site import Visit, sentence


async def listed(visit: Visit) -> Response:
    return await _page(visit)


async def _page(
    visit: Visit, made: api.KeyWithSecret | None = None, problem: str = "", status: int = 200
) -> Response:
    revoked = visit.request.query_params.get("revoked") == "1"

    async def ask(connection: AsyncConnection) -> tuple[list[KeyListing], list[str]]:
        keys = await connection.run_sync(lambda sync: list_keys(sync, revoked=revoked))
        return keys, await connection.run_sync(_places) if visit.is_admin else []

    keys, places = await visit.backend.read(ask)
    return visit.page(
        "keys.html",
        status,
        keys=[key for key in keys if visit.identity.sees(key.organization, key.team)],
        places=places,
        revoked=revoked,
        made=made,
        problem=problem,
        form=visit.form,
        now_ms=visit.backend.now_ms,
    )


def _places(connection: Connection) -> list[str]:
    """Where a key can be: teams, and projects of teams."""
    teams = {row[0]: "/".join(row[1:]) for row in connection.execute(PATHS["team"])}
    projects = [f"{teams[each.team_id]}/{each.name}" for each in load_projects(connection)]
    return sorted([*teams.values(), *projects])


async def create(visit: Visit) -> Response:
    form = visit.form
    place = form.get("place", "")
    wanted = {
        "name": form.get("name", ""),
        "project" if place.count("/") == 2 else "team": place,
        "user": form.get("user", ""),
        "expires": form.get("expires", ""),
        "models": _globs(form.get("models", "")),
        "providers": _globs(form.get("providers", "")),
    }
    return await _changed(
        visit, lambda: api.create_key(visit.backend, visit.caller, convert(wanted, api.NewKey))
    )


def _globs(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


async def rotate(visit: Visit) -> Response:
    return await _changed(visit, lambda: api.rotate_key(visit.backend, visit.caller, _by_id(visit)))


async def revoke(visit: Visit) -> Response:
    return await _changed(visit, lambda: api.revoke_key(visit.backend, visit.caller, _by_id(visit)))


def _by_id(visit: Visit) -> ById:
    return convert({"id": visit.form.get("id", "")}, ById, strict=False)


async def _changed(visit: Visit, change: Callable[[], Awaitable[Any]]) -> Response:
    """The answer to the form itself shows the secret; no address does."""
    try:
        made = await change()
    except (CatalogError, ApiError, ValidationError) as exc:
        return await _page(visit, problem=sentence(exc), status=400)
    return visit.to("/keys") if isinstance(made, Done) else await _page(visit, made)
