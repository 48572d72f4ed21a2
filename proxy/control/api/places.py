"""Organizations, teams, projects and users."""

from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct

from db import edits
from db.catalog_places import Place, find_place, places
from proxy.control.api.backend import Backend
from proxy.control.api.paging import id_of, page_of
from proxy.control.api.table import (
    ById,
    Caller,
    Done,
    Endpoint,
    Id,
    Page,
    PageRequest,
    Request,
    Text,
)
from proxy.control.figures import moment
from proxy.control.identity import Role

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Email = Annotated[str, Meta(max_length=254)]


class Organization(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    source: str  # config: read-only here
    created_at: str | None


class Team(Organization, frozen=True, kw_only=True):
    organization: str


class Project(Team, frozen=True, kw_only=True):
    team: str


class User(Team, frozen=True, kw_only=True):
    email: str


class ListPlaces(PageRequest, frozen=True, kw_only=True):
    organization: Text = ""


class ListProjects(ListPlaces, frozen=True, kw_only=True):
    team: Text = ""


class NewOrganization(Request, frozen=True, kw_only=True):
    name: Name


class NewInOrganization(Request, frozen=True, kw_only=True):
    organization_id: Id
    name: Name


class NewProject(Request, frozen=True, kw_only=True):
    team_id: Id
    name: Name


class NewUser(NewInOrganization, frozen=True, kw_only=True):
    email: Email = ""


class ChangeUser(ById, frozen=True, kw_only=True):
    email: Email


TYPES: dict[str, type[Organization]] = {
    "organization": Organization,
    "team": Team,
    "project": Project,
    "user": User,
}


def _made(kind: str, place: Place) -> Any:
    above = dict(zip(("organization", "team"), place.path[:-1], strict=False))
    email = {"email": place.email} if kind == "user" else {}
    return TYPES[kind](
        id=place.id,
        name=place.path[-1],
        source=place.source,
        created_at=moment(place.created_at_ms),
        **above,
        **email,
    )


async def _list(backend: Backend, caller: Caller, kind: str, asked: PageRequest) -> Page[Any]:
    """A viewer's are those above and below the team, users apart: these are of no team."""
    organization, _, team = caller.identity.team.partition("/")
    asked_organization = getattr(asked, "organization", "")
    asked_team = getattr(asked, "team", "")
    if asked_organization not in ("", organization) and organization:
        return Page([], None)
    if asked_team not in ("", team) and team:
        return Page([], None)
    look = partial(
        places,
        kind=kind,
        after=id_of(asked.cursor),
        limit=asked.limit + 1,
        organization=organization or asked_organization,
        team=team or asked_team,
    )
    rows = await backend.read(lambda connection: connection.run_sync(look))
    return page_of(rows, asked.limit, partial(_made, kind), lambda place: place.id)


async def _create(backend: Backend, caller: Caller, kind: str, name: str, **more: Any) -> Any:
    now_ms = backend.now_ms
    place = await backend.change(
        lambda connection: edits.create_place(connection, caller.actor, kind, name, now_ms, **more)
    )
    return _made(kind, place)


async def _delete(backend: Backend, caller: Caller, kind: str, place_id: int) -> Done:
    now_ms = backend.now_ms
    await backend.change(
        lambda connection: edits.delete_place(connection, caller.actor, kind, place_id, now_ms)
    )
    return Done()


async def list_organizations(
    backend: Backend, caller: Caller, asked: PageRequest
) -> Page[Organization]:
    return await _list(backend, caller, "organization", asked)


async def list_teams(backend: Backend, caller: Caller, asked: ListPlaces) -> Page[Team]:
    return await _list(backend, caller, "team", asked)


async def list_projects(backend: Backend, caller: Caller, asked: ListProjects) -> Page[Project]:
    return await _list(backend, caller, "project", asked)


async def list_users(backend: Backend, caller: Caller, asked: ListPlaces) -> Page[User]:
    return await _list(backend, caller, "user", asked)


async def create_organization(
    backend: Backend, caller: Caller, asked: NewOrganization
) -> Organization:
    made: Organization = await _create(backend, caller, "organization", asked.name)
    return made


async def create_team(backend: Backend, caller: Caller, asked: NewInOrganization) -> Team:
    above = asked.organization_id
    made: Team = await _create(backend, caller, "team", asked.name, parent_id=above)
    return made


async def create_project(backend: Backend, caller: Caller, asked: NewProject) -> Project:
    above = asked.team_id
    made: Project = await _create(backend, caller, "project", asked.name, parent_id=above)
    return made


async def create_user(backend: Backend, caller: Caller, asked: NewUser) -> User:
    above, email = asked.organization_id, asked.email
    made: User = await _create(backend, caller, "user", asked.name, parent_id=above, email=email)
    return made


async def change_user(backend: Backend, caller: Caller, asked: ChangeUser) -> User:
    now_ms = backend.now_ms

    def change(connection: Any) -> Place:
        edits.set_email(connection, caller.actor, asked.id, asked.email, now_ms)
        return find_place(connection, "user", asked.id)

    made: User = _made("user", await backend.change(change))
    return made


async def delete_organization(backend: Backend, caller: Caller, asked: ById) -> Done:
    return await _delete(backend, caller, "organization", asked.id)


async def delete_team(backend: Backend, caller: Caller, asked: ById) -> Done:
    return await _delete(backend, caller, "team", asked.id)


async def delete_project(backend: Backend, caller: Caller, asked: ById) -> Done:
    return await _delete(backend, caller, "project", asked.id)


async def delete_user(backend: Backend, caller: Caller, asked: ById) -> Done:
    return await _delete(backend, caller, "user", asked.id)


VIEWER, ADMIN = Role.VIEWER, Role.ADMIN
REVOKES = "Its keys are revoked, its history stays."
ENDPOINTS = (
    Endpoint(
        "GET", "/organizations", list_organizations, PageRequest, Page[Organization], VIEWER,
        "Organizations.",
    ),
    Endpoint(
        "POST", "/organizations", create_organization, NewOrganization, Organization, ADMIN,
        "Make an organization.", 201,
    ),
    Endpoint(
        "DELETE", "/organizations/{id}", delete_organization, ById, Done, ADMIN,
        f"Delete an organization. {REVOKES}",
    ),
    Endpoint("GET", "/teams", list_teams, ListPlaces, Page[Team], VIEWER, "Teams."),
    Endpoint("POST", "/teams", create_team, NewInOrganization, Team, ADMIN, "Make a team.", 201),
    Endpoint(
        "DELETE", "/teams/{id}", delete_team, ById, Done, ADMIN, f"Delete a team. {REVOKES}"
    ),
    Endpoint(
        "GET", "/projects", list_projects, ListProjects, Page[Project], VIEWER, "Projects."
    ),
    Endpoint(
        "POST", "/projects", create_project, NewProject, Project, ADMIN, "Make a project.", 201
    ),
    Endpoint(
        "DELETE", "/projects/{id}", delete_project, ById, Done, ADMIN,
        f"Delete a project. {REVOKES}",
    ),
    Endpoint("GET", "/users", list_users, ListPlaces, Page[User], ADMIN, "Users."),
    Endpoint("POST", "/users", create_user, NewUser, User, ADMIN, "Make a user.", 201),
    Endpoint(
        "PATCH", "/users/{id}", change_user, ChangeUser, User, ADMIN, "Change a user's address."
    ),
    Endpoint(
        "DELETE", "/users/{id}", delete_user, ById, Done, ADMIN, f"Delete a user. {REVOKES}"
    ),
)  # fmt: skip
