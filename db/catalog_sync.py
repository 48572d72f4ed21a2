"""Making the rows of the hierarchy what the configuration declares."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from db.alert_configs import sync_alert_configs
from db.catalog_budgets import sync_budgets
from db.catalog_types import Declared, DeclaredKey
from db.errors import CatalogError
from db.models import ApiKey, Base, Organization, Project, Team, User

NAME_CHARS_MAX = 128

# model -> the column of its parent
PARENTS: dict[type[Base], str | None] = {
    Organization: None,
    Team: "organization_id",
    Project: "team_id",
    User: "organization_id",
}
Named = tuple[int | None, str]  # (parent's id, name)


def sync_config(connection: Connection, declared: Declared, now_ms: int) -> bool:
    """Make the rows of source `config` the declared ones; the same again changes nothing.

    What is no longer declared is tombstoned (keys: revoked), what is declared again revives with
    its id, and budgets with what was spent. Rows of other sources are left alone unless declared.
    Returns whether anything changed. Raises CatalogError.
    """
    check_names(declared)
    users = {(organization, user): email for organization, user, email in declared.users}
    for key in declared.keys:
        if key.user:
            users.setdefault((key.organization, key.user), "")
    sync = _Sync(connection, now_ms)
    teams = {*declared.teams, *((path[0], path[1]) for path in declared.projects)}
    names = {*declared.organizations, *(o for o, _ in teams), *(o for o, _ in users)}
    organizations = sync.named(Organization, {(None, name): {} for name in sorted(names)})
    team_ids = sync.named(Team, {(organizations[None, o], t): {} for o, t in sorted(teams)})
    projects = sync.named(
        Project,
        {(team_ids[organizations[None, o], t], p): {} for o, t, p in declared.projects},
    )
    user_ids = sync.named(
        User, {(organizations[None, o], u): {"email": email} for (o, u), email in users.items()}
    )
    sync.keys(
        [_key_values(key, organizations, team_ids, projects, user_ids) for key in declared.keys]
    )
    changed = sync_budgets(connection, declared.budgets, now_ms)
    sync_alert_configs(connection)
    return changed or sync.changed


def check_names(declared: Declared) -> None:
    """Paths of scopes are joined with slashes, so their inner parts hold none."""
    inner = {
        *declared.organizations,
        *(name for path in declared.teams for name in path),
        *(name for path in declared.projects for name in path[:2]),
    }
    for name in inner:
        check_name(name, "name")
        if "/" in name:
            raise CatalogError(f"name {name!r}: no slash is allowed here")
    for _, _, name in declared.projects:
        check_name(name, "project")
    for _, name, _ in declared.users:
        check_name(name, "user")
    for key in declared.keys:
        check_name(key.name, "key")


def check_name(name: str, what: str) -> None:
    if not name or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise CatalogError(f"{what} {name!r}: 1 to {NAME_CHARS_MAX} printable characters")


class _Sync:
    def __init__(self, connection: Connection, now_ms: int) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self.changed = False

    def named(
        self, model: type[Base], declared: Mapping[Named, Mapping[str, Any]]
    ) -> dict[Named, int]:
        """Upsert rows known by parent and name; tombstone the rest. Returns their ids."""
        table: Any = model.__table__
        parent = PARENTS[model]
        found: dict[Named, Any] = {}
        wanted = or_(table.c.source == "config", table.c.name.in_({name for _, name in declared}))
        for row in self._connection.execute(select(table).where(wanted)):
            found[getattr(row, parent) if parent else None, row.name] = row
        ids: dict[Named, int] = {}
        for key, extra in declared.items():
            values = {"source": "config", "tombstoned_at_ms": None, **extra}
            if key in found:
                ids[key] = found[key].id
                self._update(table, found[key], values)
            else:
                own = {"name": key[1], **({parent: key[0]} if parent else {})}
                ids[key] = self._insert(table, own | values)
        for key, row in found.items():
            if key not in declared and row.source == "config" and row.tombstoned_at_ms is None:
                self._update(table, row, {"tombstoned_at_ms": self._now_ms})
        return ids

    def keys(self, declared: Iterable[dict[str, Any]]) -> None:
        table: Any = ApiKey.__table__
        by_name, secrets = _index(declared)
        wanted = or_(
            table.c.source == "config", table.c.name.in_(by_name), table.c.sha256.in_(secrets)
        )
        rows = list(self._connection.execute(select(table).where(wanted)))
        targets = _match(rows, by_name, secrets)
        for row in rows:
            # Secrets are unique at every moment, also while two keys trade theirs.
            if row.sha256 in secrets and targets.get(secrets[row.sha256]) is not row:
                self._update(table, row, {"sha256": f"was key {row.id}"})
        for name, values in by_name.items():
            if name in targets:
                self._update(table, targets[name], values)
            else:
                self._insert(table, values)
        matched = {row.id for row in targets.values()}
        for row in rows:
            if row.id not in matched and row.source == "config" and row.revoked_at_ms is None:
                self._update(table, row, {"revoked_at_ms": self._now_ms})

    def _insert(self, table: Any, values: dict[str, Any]) -> int:
        self.changed = True
        new = insert(table).values(created_at_ms=self._now_ms, **values).returning(table.c.id)
        return int(self._connection.execute(new).scalar_one())

    def _update(self, table: Any, row: Any, values: Mapping[str, Any]) -> None:
        if any(getattr(row, name) != value for name, value in values.items()):
            self.changed = True
            self._connection.execute(update(table).where(table.c.id == row.id).values(**values))


Values = dict[str, Any]


def _index(declared: Iterable[Values]) -> tuple[dict[str, Values], dict[str, str]]:
    """Keys by name, and names by secret. Raises CatalogError for one that comes twice."""
    by_name: dict[str, Values] = {}
    secrets: dict[str, str] = {}
    for values in declared:
        name, sha256 = values["name"], values["sha256"]
        if name in by_name:
            raise CatalogError(f"key {name!r} is declared twice")
        if sha256 in secrets:
            raise CatalogError(f"keys {secrets[sha256]!r} and {name!r} have the same secret")
        by_name[name], secrets[sha256] = values, name
    return by_name, secrets


def _match(
    rows: Iterable[Any], by_name: Mapping[str, Values], secrets: Mapping[str, str]
) -> dict[str, Any]:
    """Which row each declared key is: the one of its name, else the one it was renamed from."""
    targets = {row.name: row for row in rows if row.name in by_name}
    for row in rows:
        name = secrets.get(row.sha256)
        if name is None or row.name in by_name:
            continue
        if row.source != "config":
            raise CatalogError(f"key {name!r}: its secret is already that of key {row.name!r}")
        targets.setdefault(name, row)
    return targets


def _key_values(
    key: DeclaredKey,
    organizations: Mapping[Named, int],
    teams: Mapping[Named, int],
    projects: Mapping[Named, int],
    users: Mapping[Named, int],
) -> Values:
    organization_id = organizations.get((None, key.organization))
    team_id = teams.get((organization_id, key.team))
    if team_id is None:
        raise CatalogError(f"key {key.name!r}: no such team {key.organization}/{key.team}")
    project_id = projects.get((team_id, key.project))
    if key.project and project_id is None:
        raise CatalogError(f"key {key.name!r}: no such project {key.project!r} in its team")
    return {
        "name": key.name,
        "sha256": key.sha256,
        "hint": key.hint,
        "team_id": team_id,
        "project_id": project_id,
        "user_id": users.get((organization_id, key.user)),
        "models": list(key.models),
        "providers": list(key.providers),
        "refusal_status": key.refusal_status,
        "expires_at_ms": key.expires_at_ms,
        "revoked_at_ms": None,
        "source": "config",
    }
