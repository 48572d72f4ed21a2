"""Organizations, teams, projects and users by command: beside those the configuration declares."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from db.catalog_budgets import SCOPES
from db.catalog_sync import PARENTS, check_name
from db.errors import AlreadyThere, CatalogError, FromConfig, NotKnown
from db.models import ApiKey, Base, Organization, Project, Team, User

EMAIL_CHARS_MAX = 254
MODELS: dict[str, type[Base]] = {
    "organization": Organization,
    "team": Team,
    "project": Project,
    "user": User,
}
PARENT_KINDS = {"team": "organization", "project": "team", "user": "organization"}


class Place(NamedTuple):
    """A node of the hierarchy that is there."""

    id: int
    path: tuple[str, ...]  # organization, team, project; organization, user
    source: str
    created_at_ms: int
    email: str = ""

    def state(self) -> dict[str, Any]:
        email = {"email": self.email} if self.email else {}
        return {"path": "/".join(self.path), "source": self.source, **email}


def places(
    connection: Connection,
    kind: str,
    *,
    after: int = 0,
    limit: int = 1_000,
    place_id: int | None = None,
    organization: str = "",
    team: str = "",
) -> list[Place]:
    """By id, those beyond `after`."""
    model: Any = MODELS[kind]
    alive = SCOPES[kind].alive
    width = len(alive.selected_columns)
    query = alive.add_columns(model.source, model.created_at_ms).where(model.id > after)
    if kind == "user":
        query = query.add_columns(User.email)
    if place_id is not None:
        query = query.where(model.id == place_id)
    if organization:
        query = query.where(Organization.name == organization)
    if team and kind in ("team", "project"):
        query = query.where(Team.name == team)
    rows = connection.execute(query.order_by(model.id).limit(limit))
    return [Place(row[0], tuple(row[1:width]), *row[width:]) for row in rows]


def find_place(connection: Connection, kind: str, place_id: int) -> Place:
    """Raises NotKnown."""
    found = places(connection, kind, place_id=place_id)
    if not found:
        raise NotKnown(f"no {kind} has the id {place_id}")
    return found[0]


def create_place(
    connection: Connection,
    kind: str,
    name: str,
    now_ms: int,
    *,
    parent_id: int | None = None,
    email: str = "",
    source: str = "api",
) -> Place:
    """One that was deleted comes back with its id. Raises CatalogError."""
    check_name(name, kind)
    if "/" in name:
        raise CatalogError(f"{kind} {name!r}: no slash is allowed here")
    model: Any = MODELS[kind]
    if kind in PARENT_KINDS:
        assert parent_id is not None
        find_place(connection, PARENT_KINDS[kind], parent_id)
    column = PARENTS[model]
    own = {column: parent_id} if column else {}
    query = select(model.id, model.tombstoned_at_ms).filter_by(name=name, **own)
    row = connection.execute(query).first()
    if row is not None and row.tombstoned_at_ms is None:
        raise AlreadyThere(f"there is a {kind} {name!r} already")
    values = {"source": source, "tombstoned_at_ms": None, **_email(kind, email)}
    if row is not None:
        connection.execute(update(model).where(model.id == row.id).values(**values))
        return find_place(connection, kind, row.id)
    new = insert(model).values(name=name, created_at_ms=now_ms, **own, **values)
    place_id = connection.execute(new.returning(model.id)).scalar_one()
    return find_place(connection, kind, place_id)


def set_email(connection: Connection, user_id: int, email: str) -> None:
    """Raises NotKnown, FromConfig."""
    _check_own("user", find_place(connection, "user", user_id))
    values = _email("user", email)
    connection.execute(update(User).where(User.id == user_id).values(**values))


def delete_place(connection: Connection, kind: str, place_id: int, now_ms: int) -> list[str]:
    """Its keys are revoked, its budgets rest. Returns the names of the keys. Raises NotKnown,
    FromConfig."""
    model: Any = MODELS[kind]
    _check_own(kind, find_place(connection, kind, place_id))
    beneath = {
        "organization": ApiKey.team_id.in_(select(Team.id).where(Team.organization_id == place_id)),
        "team": ApiKey.team_id == place_id,
        "project": ApiKey.project_id == place_id,
        "user": ApiKey.user_id == place_id,
    }[kind]
    revoked = update(ApiKey).where(beneath, ApiKey.revoked_at_ms.is_(None))
    names = connection.execute(revoked.values(revoked_at_ms=now_ms).returning(ApiKey.name))
    found = sorted(names.scalars())
    gone = update(model).where(model.id == place_id).values(tombstoned_at_ms=now_ms)
    connection.execute(gone)
    return found


def _check_own(kind: str, place: Place) -> None:
    if place.source == "config":
        name = "/".join(place.path)
        raise FromConfig(f"{kind} {name!r} is declared in the configuration: change it there")


def _email(kind: str, email: str) -> dict[str, str]:
    if kind != "user":
        return {}
    if len(email) > EMAIL_CHARS_MAX or (email and not email.isprintable()):
        raise CatalogError(f"an email address has up to {EMAIL_CHARS_MAX} printable characters")
    return {"email": email}
