"""Who a call is charged to: principals, the scopes they belong to, and the budgets that apply.

A scope's path is its kind and the names that lead to it: `team/acme/search`. Names hold no
slash, except the last.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from proxy.errors import Refusal
from proxy.wire import BudgetEntry, KeyEntry

USER_CHARS_MAX = 128
CACHED_MATCHES_MAX = 4096
NAME = re.compile(r"[\w.@:+/-]{1,128}", re.ASCII)  # of a user or a customer
CUSTOMERS_MAX = 10_000  # budgets of customers that are remembered, those used last


class Principal:
    """The caller of one call: its key, and the user, project and end customer it acts for
    ("": none)."""

    __slots__ = ("customer", "key", "project", "project_id", "user")

    def __init__(
        self, key: KeyEntry, user: str, project: str, project_id: int, customer: str = ""
    ) -> None:
        self.key = key
        self.customer = customer
        self.user = user
        self.project = project
        self.project_id = project_id

    @classmethod
    def of(
        cls,
        key: KeyEntry,
        user: str,
        project: str,
        projects: Mapping[tuple[int, str], int],
        customer: str = "",
    ) -> "Principal":
        """Complete a key with what the request's headers name ("": nothing).

        `projects` maps (team id, name) to the id. Raises Refusal invalid_tollkeeper_header for a
        project the team does not have, and for a contradiction with what the key is bound to.
        """
        if user and user != key.user:
            _check_user(key, user)
        if not project or project == key.project:
            return cls(key, key.user or user, key.project, key.project_id, customer)
        if key.project_id:
            raise _invalid(f"project: the key '{key.name}' is bound to '{key.project}'")
        project_id = projects.get((key.team_id, project))
        if project_id is None:
            raise _invalid(f"project: the team '{key.team}' has no project '{project[:128]}'")
        return cls(key, key.user or user, project, project_id, customer)

    @property
    def key_id(self) -> int:
        return self.key.id

    @property
    def key_name(self) -> str:
        return self.key.name

    @property
    def organization_id(self) -> int:
        return self.key.organization_id

    @property
    def organization(self) -> str:
        return self.key.organization

    @property
    def team_id(self) -> int:
        return self.key.team_id

    @property
    def team(self) -> str:
        return self.key.team

    @property
    def refusal_status(self) -> int:
        return self.key.refusal_status

    def allows_model(self, model: str) -> bool:
        return not self.key.models or _matches(self.key.models, model)

    def allows_provider(self, name: str) -> bool:
        return not self.key.providers or _matches(self.key.providers, name)


def _check_user(key: KeyEntry, user: str) -> None:
    if key.user:
        raise _invalid(f"user: the key '{key.name}' is bound to '{key.user}'")
    if len(user) > USER_CHARS_MAX or not user.isprintable():
        raise _invalid(f"user: expected at most {USER_CHARS_MAX} printable characters")


def _invalid(what: str) -> Refusal:
    return Refusal("invalid_tollkeeper_header", f"x-tollkeeper-{what}.")


# --- scopes -------------------------------------------------------------------------------------


class ScopeKind(NamedTuple):
    """A level of the hierarchy that a budget can hang on; one entry of `SCOPE_KINDS`."""

    name: str
    parts: tuple[str, ...]  # what its path names, for people
    names: Callable[[Principal], tuple[str, ...]]  # the path's names for a caller; "" = none


SCOPE_KINDS = {
    kind.name: kind
    for kind in (
        ScopeKind("organization", ("ORG",), lambda p: (p.organization,)),
        ScopeKind("team", ("ORG", "TEAM"), lambda p: (p.organization, p.team)),
        ScopeKind(
            "project",
            ("ORG", "TEAM", "PROJECT"),
            lambda p: (p.organization, p.team, p.project),
        ),
        ScopeKind("user", ("ORG", "USER"), lambda p: (p.organization, p.user)),
        ScopeKind("key", ("KEY",), lambda p: (p.key_name,)),
    )
}


def parse_scope(path: str) -> tuple[ScopeKind, tuple[str, ...]]:
    """The kind and the names of a scope's path. Raises ValueError that says what is expected."""
    name, _, rest = path.partition("/")
    kind = SCOPE_KINDS.get(name)
    if kind is None:
        raise ValueError(f"scope {path!r}: the kind is one of {', '.join(SCOPE_KINDS)}")
    names = tuple(rest.split("/", len(kind.parts) - 1))
    if len(names) != len(kind.parts) or not all(names):
        raise ValueError(f"scope {path!r}: expected {'/'.join((name, *kind.parts))}")
    return kind, names


def scopes_of(principal: Principal) -> list[str]:
    """Paths of all scopes that a caller belongs to, the widest first."""
    found = []
    for kind in SCOPE_KINDS.values():
        names = kind.names(principal)
        if all(names):
            found.append("/".join((kind.name, *names)))
    return found


# --- budgets ------------------------------------------------------------------------------------


class BudgetIndex:
    """The budgets of one snapshot, found by who calls what.

    A template applies through the budgets that are made from it, one for each customer. Those are
    asked for as customers are met (`learn`), and only the ones used last are kept.
    """

    def __init__(self, budgets: Iterable[BudgetEntry], customers_max: int = CUSTOMERS_MAX) -> None:
        """Raises ValueError for a scope that could never match: it would be no limit at all."""
        self._by_scope: dict[str, list[BudgetEntry]] = {}
        self._templates: dict[str, list[BudgetEntry]] = {}
        self._customers: OrderedDict[tuple[int, str], BudgetEntry] = OrderedDict()
        self._customers_max = customers_max
        self._cache: dict[tuple[int, str, int, str, str, str], tuple[BudgetEntry, ...]] = {}
        for budget in budgets:
            if budget.template:
                self._customers[budget.template, budget.customer] = budget
                continue
            parse_scope(budget.scope)
            where = self._templates if budget.each else self._by_scope
            where.setdefault(budget.scope, []).append(budget)
        self.templated = bool(self._templates)
        self.reads_body = any(
            budget.customer_from_body for found in self._templates.values() for budget in found
        )

    def match(self, principal: Principal, provider: str, model: str) -> tuple[BudgetEntry, ...]:
        """All budgets a call is charged to, by id; the same tuple again while nothing changes. Of
        a customer, those that are known."""
        customer = principal.customer if self.templated else ""
        key = (principal.key.id, principal.user, principal.project_id, customer, provider, model)
        found = self._cache.get(key)
        if found is None:
            found = tuple(
                budget for budget in self.of(principal) if applies(budget, provider, model)
            )
            found = tuple(sorted(found, key=lambda budget: budget.id))
            if not customer or not self.unmet(principal):
                if len(self._cache) >= CACHED_MATCHES_MAX:  # clients choose users and models
                    self._cache.clear()
                self._cache[key] = found
        return found

    def of(self, principal: Principal) -> tuple[BudgetEntry, ...]:
        """All budgets on a caller's scopes, whatever models and providers they are for; the widest
        scope first, then those of its customer."""
        found = [b for scope in scopes_of(principal) for b in self._by_scope.get(scope, ())]
        if self.templated and principal.customer:
            known = (self.customer(t, principal.customer) for t in self.templates_of(principal))
            found.extend(budget for budget in known if budget is not None)
        return tuple(found)

    # --- customers

    def templates_of(self, principal: Principal) -> tuple[BudgetEntry, ...]:
        """Those on a caller's scopes, whatever they are for."""
        return tuple(t for scope in scopes_of(principal) for t in self._templates.get(scope, ()))

    def customer(self, template: BudgetEntry, customer: str) -> BudgetEntry | None:
        """The budget that pays for a customer; None: it is not known."""
        key = (template.id, customer)
        found = self._customers.get(key)
        if found is not None:
            self._customers.move_to_end(key)
        return found

    def unmet(self, principal: Principal) -> tuple[int, ...]:
        """Templates whose budget for the caller's customer is not known."""
        customer = principal.customer
        return tuple(
            t.id for t in self.templates_of(principal) if self.customer(t, customer) is None
        )

    def learn(self, customer: str, budgets: Iterable[BudgetEntry]) -> list[BudgetEntry]:
        """Those that pay for a customer. Returns what is forgotten in their place: a good part at
        once, because with it goes what was found before."""
        for budget in budgets:
            self._customers[budget.template, customer] = budget
        forgotten = []
        if len(self._customers) > self._customers_max:
            self._cache.clear()
            keep = self._customers_max - self._customers_max // 8
            while len(self._customers) > keep:
                forgotten.append(self._customers.popitem(last=False)[1])
        return forgotten


def applies(budget: BudgetEntry, provider: str, model: str) -> bool:
    """Whether calls of this model at this provider are charged to it, or are what it is for."""
    return (not budget.models or _matches(budget.models, model)) and (
        not budget.providers or _matches(budget.providers, provider)
    )


def _matches(globs: tuple[str, ...], name: str) -> bool:
    """Case does not matter: some providers accept model names in any, and a filter that case
    slips through would be no limit."""
    name = name.lower()
    return any(fnmatchcase(name, glob.lower()) for glob in globs)
