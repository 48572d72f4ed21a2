"""What goes into the catalog and what comes out: plain values, no rows.

`KeyRow`, `ProjectRow` and `BudgetRow` have the fields of the snapshot's entries in their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class DeclaredKey:
    name: str
    sha256: str  # hex
    organization: str
    team: str
    project: str = ""
    user: str = ""
    hint: str = ""
    expires_at_ms: int | None = None
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    refusal_status: int = 0


@dataclass(frozen=True, slots=True)
class DeclaredBudget:
    scope: str  # "team/acme/search"
    unit: str  # usd | tokens | requests
    limit: int  # nano-USD, tokens or requests
    period: str
    timezone: str = "UTC"
    week_start: int = 0
    month_day: int = 1
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)  # BudgetRow's from `clamp` on, alerts


@dataclass(frozen=True, slots=True)
class Declared:
    """Everything the configuration declares. Parents need not be listed before children."""

    organizations: tuple[str, ...] = ()
    teams: tuple[tuple[str, str], ...] = ()  # (organization, team)
    projects: tuple[tuple[str, str, str], ...] = ()  # (organization, team, project)
    users: tuple[tuple[str, str, str], ...] = ()  # (organization, user, email)
    keys: tuple[DeclaredKey, ...] = ()
    budgets: tuple[DeclaredBudget, ...] = ()


class KeyRow(NamedTuple):
    id: int
    sha256: str
    name: str
    organization_id: int
    organization: str
    team_id: int
    team: str
    project_id: int
    project: str
    user: str
    expires_at: int  # unix seconds, 0: never
    revoked: bool
    models: tuple[str, ...]
    providers: tuple[str, ...]
    refusal_status: int


class ProjectRow(NamedTuple):
    id: int
    team_id: int
    name: str


class BudgetRow(NamedTuple):
    id: int
    scope: str
    unit: str
    limit: int
    period: str
    timezone: str
    week_start: int
    month_day: int
    models: tuple[str, ...]
    providers: tuple[str, ...]
    clamp: bool = True
    clamp_share: float = 0.125
    clamp_min_tokens: int = 1024
    hold_wait_ms: int = 2000
    server_tool_passes: int = 4
    learned: bool = False
    enforce: bool = True
    downgrade: tuple[tuple[str, str], ...] = ()  # (glob of models, the model in their stead)
    raised: int = 0  # the part of the limit that is temporary
    each: str = ""  # "customer": a template, every customer has a budget of its own like this
    customers_max: int = 0  # of a template: how many customers have one
    beyond: str = ""  # and what happens to further ones: refuse | share
    customer_required: bool = False
    customer_from_body: bool = False
    template: int = 0  # the budget that a customer's was made from,
    customer: str = ""  # and the customer; "*": all those beyond `customers_max`


class CreatedKey(NamedTuple):
    id: int
    name: str
    secret: str  # shown once, stored nowhere


class KeyListing(NamedTuple):
    """A key for people to look at."""

    name: str
    hint: str
    organization: str
    team: str
    project: str
    user: str
    models: tuple[str, ...]
    providers: tuple[str, ...]
    expires_at_ms: int | None
    revoked_at_ms: int | None
    source: str
    created_at_ms: int
    id: int
