"""Keys: who has one. Admins make, rotate and revoke them; a secret is in one answer only."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from db.catalog import create_key, list_keys, load_projects, revoke_key, rotate_key
from db.catalog_types import CreatedKey, KeyListing
from db.errors import CatalogError
from db.paths import PATHS
from proxy.config import expires_at_ms
from proxy.control.dashboard.site import Visit

GLOBS_MAX = 20


async def listed(visit: Visit) -> Response:
    return await _page(visit)


async def _page(
    visit: Visit, made: CreatedKey | None = None, problem: str = "", status: int = 200
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
    try:
        expires = expires_at_ms(form["expires"]) if form.get("expires") else None
    except (ValueError, OverflowError):
        return await _page(visit, problem="The day it expires is not a date.", status=400)
    place = form.get("place", "")
    of_project = place.count("/") == 2
    make = partial(
        create_key,
        name=form.get("name", ""),
        now_ms=visit.backend.now_ms,
        team="" if of_project else place,
        project=place if of_project else "",
        user=form.get("user", ""),
        expires_at_ms=expires,
        models=_globs(form.get("models", "")),
        providers=_globs(form.get("providers", "")),
        source="api",
    )
    return await _changed(visit, make)


def _globs(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())[:GLOBS_MAX]


async def rotate(visit: Visit) -> Response:
    return await _changed(visit, partial(rotate_key, name=visit.form.get("name", "")))


async def revoke(visit: Visit) -> Response:
    name, now_ms = visit.form.get("name", ""), visit.backend.now_ms
    return await _changed(visit, partial(revoke_key, name=name, now_ms=now_ms))


async def _changed(visit: Visit, change: Callable[[Connection], CreatedKey | None]) -> Response:
    """The answer to the form itself shows the secret; no address does."""
    try:
        made = await visit.change(change)
    except CatalogError as exc:
        return await _page(visit, problem=f"{exc}.", status=400)
    return await _page(visit, made) if made is not None else visit.to("/keys")
