"""Where everything of the hierarchy is: for each kind, its rows as (id, the parts of the path)."""

from typing import Any

from sqlalchemy import Select, select

from db.models import ApiKey, Organization, Project, Team, User

Query = Select[*tuple[Any, ...]]

PATHS: dict[str, Query] = {
    "organization": select(Organization.id, Organization.name),
    "team": select(Team.id, Organization.name, Team.name).join(
        Organization, Team.organization_id == Organization.id
    ),
    "project": select(Project.id, Organization.name, Team.name, Project.name)
    .join(Team, Project.team_id == Team.id)
    .join(Organization, Team.organization_id == Organization.id),
    "user": select(User.id, Organization.name, User.name).join(
        Organization, User.organization_id == Organization.id
    ),
    "key": select(ApiKey.id, ApiKey.name),
}
