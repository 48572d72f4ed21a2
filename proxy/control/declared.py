"""What the configuration declares, as the catalog takes it."""

import hashlib
from collections.abc import Iterator

from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from proxy.config import WEEKDAYS, Budget, Config, Customers, Key, expires_at_ms

HINT_CHARS = 4


def declared(config: Config) -> Declared:
    """The hierarchy, keys and budgets of a loaded configuration. A key's secret stays behind."""
    teams: list[tuple[str, str]] = []
    projects: list[tuple[str, str, str]] = []
    users: dict[tuple[str, str], str] = {}
    for org_name, org in config.organizations.items():
        users.update({(org_name, name): user.email for name, user in org.users.items()})
        for team_name, team in org.teams.items():
            teams.append((org_name, team_name))
            projects.extend((org_name, team_name, project) for project in team.projects)
    keys = tuple(_keys(config))
    for key in keys:
        if key.user:
            users.setdefault((key.organization, key.user), "")
    return Declared(
        organizations=tuple(config.organizations),
        teams=tuple(teams),
        projects=tuple(projects),
        users=tuple((org_name, name, email) for (org_name, name), email in users.items()),
        keys=keys,
        budgets=tuple(declared_budget(budget) for budget in config.budgets),
    )


def _keys(config: Config) -> Iterator[DeclaredKey]:
    for org_name, org in config.organizations.items():
        for team_name, team in org.teams.items():
            yield from (_key(key, org_name, team_name, "") for key in team.keys)
            for project_name, project in team.projects.items():
                yield from (_key(key, org_name, team_name, project_name) for key in project.keys)


def _key(key: Key, organization: str, team: str, project: str) -> DeclaredKey:
    return DeclaredKey(
        name=key.name,
        sha256=key.key_sha256 or hashlib.sha256(key.key.encode()).hexdigest(),
        organization=organization,
        team=team,
        project=project,
        user=key.user,
        hint=key.key[-HINT_CHARS:] if len(key.key) >= 4 * HINT_CHARS else "",
        expires_at_ms=expires_at_ms(key.expires) if key.expires else None,
        models=tuple(key.models),
        providers=tuple(key.providers),
        refusal_status=key.refusal_status,
    )


def declared_budget(budget: Budget) -> DeclaredBudget:
    unit, limit = budget.unit_and_limit()
    return DeclaredBudget(
        scope=budget.scope,
        unit=unit,
        limit=limit,
        period=budget.period,
        timezone=budget.timezone,
        week_start=WEEKDAYS.index(budget.week_start),
        month_day=budget.month_day,
        models=tuple(budget.models),
        providers=tuple(budget.providers),
        options={
            "clamp": budget.clamp,
            "clamp_share": budget.clamp_share,
            "clamp_min_tokens": budget.clamp_min_tokens,
            "hold_wait_ms": budget.hold_wait_ms,
            "server_tool_passes": budget.server_tool_passes,
            "learned": budget.hold == "learned",
            "enforce": budget.enforce,
            "downgrade": [list(pair) for pair in budget.on_exhausted.downgrade.items()],
            "alert_at": budget.alert_at,
            "alert_exhaustion_h": budget.alert_exhaustion_h,
            **_template(budget),
        },
    )


def _template(budget: Budget) -> dict[str, object]:
    """The options of a budget that every customer has one like."""
    if not budget.each:
        return {}
    return {"each": budget.each, **customer_options(budget.customers)}


def customer_options(customers: Customers) -> dict[str, object]:
    return {
        "customers_max": customers.tracked_max,
        "beyond": customers.beyond,
        "customer_required": customers.required,
        "customer_from_body": customers.from_body,
    }
