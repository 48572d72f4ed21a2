"""API keys: made, listed, rotated, revoked. A secret is in one answer and nowhere else."""

from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct

from db import edits
from db.catalog import key_page
from db.catalog_types import CreatedKey, KeyListing
from db.errors import NotKnown
from proxy.config import expires_at_ms
from proxy.control.api.backend import Backend
from proxy.control.api.failures import ApiError
from proxy.control.api.paging import id_of, page_of
from proxy.control.api.table import (
    ById,
    Caller,
    Done,
    Endpoint,
    Page,
    PageRequest,
    Request,
    Text,
)
from proxy.control.figures import moment
from proxy.control.identity import Role

Globs = Annotated[tuple[Text, ...], Meta(max_length=100)]


class Key(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    hint: str  # the last characters of the secret
    organization: str
    team: str
    project: str
    user: str
    models: list[str]
    providers: list[str]
    expires_at: str | None
    revoked_at: str | None
    source: str  # config: read-only here
    created_at: str | None


class KeyWithSecret(Struct, frozen=True, kw_only=True):
    key: Key
    secret: str  # shown now and never again


class ListKeys(PageRequest, frozen=True, kw_only=True):
    team: Annotated[str, Meta(max_length=512, description="ORG/TEAM")] = ""
    revoked: bool = False  # those that are revoked too


class NewKey(Request, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    team: Annotated[str, Meta(max_length=512, description="ORG/TEAM")] = ""
    project: Annotated[str, Meta(max_length=512, description="of the team, or ORG/TEAM/NAME")] = ""
    user: Annotated[str, Meta(max_length=128)] = ""
    expires: Annotated[str, Meta(max_length=64, description="Date or timestamp.")] = ""
    models: Globs = ()
    providers: Globs = ()


def _key(row: KeyListing) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        hint=row.hint,
        organization=row.organization,
        team=row.team,
        project=row.project,
        user=row.user,
        models=list(row.models),
        providers=list(row.providers),
        expires_at=moment(row.expires_at_ms),
        revoked_at=moment(row.revoked_at_ms),
        source=row.source,
        created_at=moment(row.created_at_ms),
    )


async def list_keys(backend: Backend, caller: Caller, asked: ListKeys) -> Page[Key]:
    team = caller.identity.narrow({"team": asked.team} if asked.team else {}).get("team", "")
    look = partial(
        key_page,
        after=id_of(asked.cursor),
        limit=asked.limit + 1,
        revoked=asked.revoked,
        team=team,
    )
    rows = await backend.read(lambda connection: connection.run_sync(look))
    return page_of(rows, asked.limit, _key, lambda row: row.id)


async def get_key(backend: Backend, caller: Caller, asked: ById) -> Key:
    look = partial(key_page, limit=1, revoked=True, team=caller.identity.team, key_id=asked.id)
    rows = await backend.read(lambda connection: connection.run_sync(look))
    if not rows:
        raise NotKnown(f"no key has the id {asked.id}")
    return _key(rows[0])


async def create_key(backend: Backend, caller: Caller, asked: NewKey) -> KeyWithSecret:
    now_ms = backend.now_ms
    wanted = {
        "name": asked.name,
        "team": asked.team,
        "project": asked.project,
        "user": asked.user,
        "expires_at_ms": _expires(asked.expires),
        "models": tuple(asked.models),
        "providers": tuple(asked.providers),
        "source": "api",
    }

    def create(connection: Any) -> KeyWithSecret:
        made = edits.create_key(connection, caller.actor, now_ms=now_ms, **wanted)
        return _with_secret(connection, made)

    return await backend.change(create)


def _expires(text: str) -> int | None:
    """Raises ApiError."""
    if not text:
        return None
    try:
        return expires_at_ms(text)
    except (ValueError, OverflowError) as exc:
        message = f"{text!r} is not a date or timestamp, like 2027-01-31"
        raise ApiError(400, "invalid_parameter", message, "expires") from exc


def _with_secret(connection: Any, made: CreatedKey) -> KeyWithSecret:
    (row,) = key_page(connection, limit=1, revoked=True, key_id=made.id)
    return KeyWithSecret(key=_key(row), secret=made.secret)


async def rotate_key(backend: Backend, caller: Caller, asked: ById) -> KeyWithSecret:
    now_ms = backend.now_ms

    def rotate(connection: Any) -> KeyWithSecret:
        name = edits.key_name(connection, asked.id)
        return _with_secret(connection, edits.rotate_key(connection, caller.actor, name, now_ms))

    return await backend.change(rotate)


async def revoke_key(backend: Backend, caller: Caller, asked: ById) -> Done:
    now_ms = backend.now_ms

    def revoke(connection: Any) -> None:
        name = edits.key_name(connection, asked.id)
        edits.revoke_key(connection, caller.actor, name, now_ms)

    await backend.change(revoke)
    return Done()


VIEWER, ADMIN = Role.VIEWER, Role.ADMIN
ENDPOINTS = (
    Endpoint("GET", "/keys", list_keys, ListKeys, Page[Key], VIEWER, "Keys, never a secret."),
    Endpoint(
        "POST", "/keys", create_key, NewKey, KeyWithSecret, ADMIN,
        "Make a key: its secret is in this answer and nowhere else.", 201,
    ),
    Endpoint("GET", "/keys/{id}", get_key, ById, Key, VIEWER, "One key."),
    Endpoint(
        "POST", "/keys/{id}/rotate", rotate_key, ById, KeyWithSecret, ADMIN,
        "A new secret for the same key: the old one stops.",
    ),
    Endpoint(
        "DELETE", "/keys/{id}", revoke_key, ById, Done, ADMIN,
        "Revoke a key: further calls with it are refused.",
    ),
)  # fmt: skip
