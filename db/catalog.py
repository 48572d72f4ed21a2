"""Keys, projects and budgets: who may call, and what a snapshot says of them.

Functions take a synchronous connection inside a transaction of the caller's, e.g.
`await connection.run_sync(create_key, ...)`. Whoever changes something bumps the revision in the
same transaction, and every worker knows within a second.
"""

import hashlib
import secrets
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from db.catalog_budgets import load_budgets, set_limit
from db.catalog_sync import check_name, sync_config
from db.catalog_types import CreatedKey, KeyListing, KeyRow, ProjectRow
from db.errors import AlreadyThere, CatalogError, FromConfig, NotKnown
from db.models import ApiKey, Organization, Project, Revision, Team, User
from db.notifications import CATALOG, notify
from db.paths import Query

__all__ = [
    "bump_revision",
    "create_key",
    "hash_key",
    "hint_of",
    "list_keys",
    "load_budgets",
    "load_keys",
    "load_projects",
    "new_secret",
    "read_revision",
    "revoke_key",
    "rotate_key",
    "set_limit",
    "sync_config",
]

KEY_PREFIX = "tk-"
KEY_RANDOM_BYTES = 32
HINT_CHARS = 4


def new_secret() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(KEY_RANDOM_BYTES)


def hash_key(secret: str) -> str:
    """What is stored of a key. Secrets are random, so one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hint_of(secret: str) -> str:
    """The last characters, so that people can tell keys apart; nothing of a short secret."""
    return secret[-HINT_CHARS:] if len(secret) >= 4 * HINT_CHARS else ""


# --- the revision --------------------------------------------------------------------------


def read_revision(connection: Connection) -> int:
    return int(connection.execute(select(Revision.revision)).scalar_one())


def bump_revision(connection: Connection) -> int:
    """Returns the new revision."""
    bump = update(Revision).values(revision=Revision.revision + 1).returning(Revision.revision)
    notify(connection, CATALOG)
    return int(connection.execute(bump).scalar_one())


# --- what a snapshot needs -----------------------------------------------------------------


def load_keys(connection: Connection) -> list[KeyRow]:
    """All keys, by id; one whose team, project or organization is gone counts as revoked."""
    return [_key_row(row) for row in connection.execute(_keys_query())]


def load_projects(connection: Connection) -> list[ProjectRow]:
    query = (
        select(Project.id, Project.team_id, Project.name)
        .join(Team, Project.team_id == Team.id)
        .join(Organization, Team.organization_id == Organization.id)
        .where(
            Project.tombstoned_at_ms.is_(None),
            Team.tombstoned_at_ms.is_(None),
            Organization.tombstoned_at_ms.is_(None),
        )
        .order_by(Project.id)
    )
    return [ProjectRow(*row) for row in connection.execute(query)]


def _keys_query() -> Query:
    gone = or_(
        ApiKey.revoked_at_ms.is_not(None),
        Organization.tombstoned_at_ms.is_not(None),
        Team.tombstoned_at_ms.is_not(None),
        Project.tombstoned_at_ms.is_not(None),
    )
    return (
        select(
            ApiKey.__table__,
            Organization.id.label("organization_id"),
            Organization.name.label("organization"),
            Team.name.label("team"),
            Project.name.label("project"),
            User.name.label("user_name"),
            gone.label("gone"),
        )
        .join(Team, ApiKey.team_id == Team.id)
        .join(Organization, Team.organization_id == Organization.id)
        .join(Project, ApiKey.project_id == Project.id, isouter=True)
        .join(User, ApiKey.user_id == User.id, isouter=True)
        .order_by(ApiKey.id)
    )


def _key_row(row: Row[Any]) -> KeyRow:
    return KeyRow(
        id=row.id,
        sha256=row.sha256,
        name=row.name,
        organization_id=row.organization_id,
        organization=row.organization,
        team_id=row.team_id,
        team=row.team,
        project_id=row.project_id or 0,
        project=row.project or "",
        user=row.user_name or "",
        expires_at=0 if row.expires_at_ms is None else max(row.expires_at_ms // 1000, 1),
        revoked=bool(row.gone),
        models=tuple(row.models),
        providers=tuple(row.providers),
        refusal_status=row.refusal_status,
    )


# --- keys by command -----------------------------------------------------------------------


def list_keys(connection: Connection, *, revoked: bool = False) -> list[KeyListing]:
    """Keys by name, those that are revoked or whose place is gone only if asked for."""
    rows = connection.execute(_keys_query()).all()
    return sorted(_listing(row) for row in rows if revoked or not row.gone)


def key_page(
    connection: Connection,
    *,
    after: int = 0,
    limit: int,
    revoked: bool = False,
    team: str = "",
    key_id: int | None = None,
) -> list[KeyListing]:
    """The same by id, those beyond `after`; `team` is ORG/TEAM."""
    query = _keys_query().where(ApiKey.id > after).limit(limit)
    if not revoked:
        query = query.where(
            ApiKey.revoked_at_ms.is_(None),
            Organization.tombstoned_at_ms.is_(None),
            Team.tombstoned_at_ms.is_(None),
            Project.tombstoned_at_ms.is_(None),
        )
    if team:
        organization, _, name = team.partition("/")
        query = query.where(Organization.name == organization, Team.name == name)
    if key_id is not None:
        query = query.where(ApiKey.id == key_id)
    return [_listing(row) for row in connection.execute(query)]


def _listing(row: Row[Any]) -> KeyListing:
    return KeyListing(
        name=row.name,
        hint=row.hint,
        organization=row.organization,
        team=row.team,
        project=row.project or "",
        user=row.user_name or "",
        models=tuple(row.models),
        providers=tuple(row.providers),
        expires_at_ms=row.expires_at_ms,
        revoked_at_ms=row.revoked_at_ms,
        source=row.source,
        created_at_ms=row.created_at_ms,
        id=row.id,
    )


def create_key(
    connection: Connection,
    *,
    name: str,
    now_ms: int,
    team: str = "",
    project: str = "",
    user: str = "",
    expires_at_ms: int | None = None,
    models: tuple[str, ...] = (),
    providers: tuple[str, ...] = (),
    source: str = "cli",
) -> CreatedKey:
    """Make a key of a team ("acme/search") or project ("acme/search/ranking"), maybe a user's.

    A team or project may be named alone where only one has that name; a user not known yet is
    made. Names are never used twice, so that reports stay unambiguous. Raises CatalogError.
    """
    check_name(name, "key")
    if connection.execute(select(ApiKey.id).where(ApiKey.name == name)).first():
        raise AlreadyThere(f"a key named {name!r} exists already, or did; take another name")
    team_id, project_id, organization_id = _place(connection, team, project)
    secret = new_secret()
    values = {
        "name": name,
        "sha256": hash_key(secret),
        "hint": hint_of(secret),
        "team_id": team_id,
        "project_id": project_id,
        "user_id": _user_id(connection, organization_id, user, source, now_ms) if user else None,
        "models": list(models),
        "providers": list(providers),
        "expires_at_ms": expires_at_ms,
        "source": source,
        "created_at_ms": now_ms,
    }
    new = insert(ApiKey).values(**values).returning(ApiKey.id)
    key_id = connection.execute(new).scalar_one()
    bump_revision(connection)
    return CreatedKey(key_id, name, secret)


def revoke_key(connection: Connection, name: str, now_ms: int) -> None:
    """Calls with it are refused within a second; those in flight end as usual."""
    key = _own_key(connection, name)
    connection.execute(update(ApiKey).where(ApiKey.id == key.id).values(revoked_at_ms=now_ms))
    bump_revision(connection)


def rotate_key(connection: Connection, name: str) -> CreatedKey:
    """A new secret for the same key: same id, name, budgets and history; the old secret stops."""
    key = _own_key(connection, name)
    secret = new_secret()
    connection.execute(
        update(ApiKey)
        .where(ApiKey.id == key.id)
        .values(sha256=hash_key(secret), hint=hint_of(secret))
    )
    bump_revision(connection)
    return CreatedKey(key.id, name, secret)


def _own_key(connection: Connection, name: str) -> Any:
    """A live key that commands may change: what the configuration declares, it also takes back."""
    query = select(ApiKey.id, ApiKey.source, ApiKey.revoked_at_ms).where(ApiKey.name == name)
    key = connection.execute(query).first()
    if key is None:
        raise NotKnown(f"no key is named {name!r}")
    if key.revoked_at_ms is not None:
        raise AlreadyThere(f"key {name!r} is revoked already")
    if key.source == "config":
        raise FromConfig(f"key {name!r} is declared in the configuration: change it there")
    return key


def _place(connection: Connection, team: str, project: str) -> tuple[int, int | None, int]:
    """Ids of (team, project, organization)."""
    if not team and not project:
        raise CatalogError("a key needs a team or a project")
    query = (
        select(Team.id, Organization.id, Organization.name, Team.name)
        .join(Organization, Team.organization_id == Organization.id)
        .where(Team.tombstoned_at_ms.is_(None), Organization.tombstoned_at_ms.is_(None))
    )
    if not project:
        team_id, organization_id, *_ = _only(connection, query, team, "team")
        return team_id, None, organization_id
    query = (
        query.add_columns(Project.name, Project.id)
        .join(Project, Project.team_id == Team.id)
        .where(Project.tombstoned_at_ms.is_(None))
    )
    path = f"{team}/{project}" if team else project
    team_id, organization_id, *_, project_id = _only(connection, query, path, "project")
    return team_id, project_id, organization_id


def _only(connection: Connection, query: Query, path: str, kind: str) -> Any:
    """The one row whose path ends in `path`."""
    width = 2 if kind == "team" else 3
    wanted = path.split("/", width - 1)
    found = [
        row
        for row in connection.execute(query)
        if list(row[2 : 2 + width])[-len(wanted) :] == wanted
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CatalogError(f"no such {kind}: {path!r}")
    paths = ", ".join(sorted("/".join(row[2 : 2 + width]) for row in found))
    raise CatalogError(f"{kind} {path!r} is ambiguous: {paths}")


def _user_id(
    connection: Connection, organization_id: int, name: str, source: str, now_ms: int
) -> int:
    check_name(name, "user")
    query = select(User.id).where(User.organization_id == organization_id, User.name == name)
    found = connection.execute(query).scalar_one_or_none()
    if found is not None:
        connection.execute(update(User).where(User.id == found).values(tombstoned_at_ms=None))
        return int(found)
    new = insert(User).values(
        organization_id=organization_id, name=name, source=source, created_at_ms=now_ms
    )
    return int(connection.execute(new.returning(User.id)).scalar_one())
