import re

import pytest

from proxy.errors import Refusal
from proxy.scopes import (
    CACHED_MATCHES_MAX,
    SCOPE_KINDS,
    BudgetIndex,
    Principal,
    parse_scope,
    scopes_of,
)
from proxy.wire import BudgetEntry
from tests.factories import a_budget, a_key

PROJECTS = {(2, "ranking"): 31, (3, "billing"): 32}


def a_principal(user: str = "", project: str = "", **key: object) -> Principal:
    return Principal.of(a_key(**key), user, project, PROJECTS)


def test_a_caller_belongs_to_every_scope_it_names():
    assert scopes_of(a_principal()) == ["organization/acme", "team/acme/search", "key/search-prod"]
    assert scopes_of(a_principal("ana", "ranking")) == [
        "organization/acme",
        "team/acme/search",
        "project/acme/search/ranking",
        "user/acme/ana",
        "key/search-prod",
    ]


def test_what_the_key_is_bound_to_needs_no_header():
    principal = Principal.of(a_key(user="ana", project="ranking", project_id=31), "", "", {})
    assert (principal.user, principal.project, principal.project_id) == ("ana", "ranking", 31)
    same = Principal.of(principal.key, "ana", "ranking", {})
    assert (same.user, same.project_id) == ("ana", 31)


@pytest.mark.parametrize(
    ("key", "user", "project", "message"),
    [
        ({"user": "ana"}, "bob", "", "x-tollkeeper-user: .* bound to 'ana'"),
        ({"project": "ranking", "project_id": 31}, "", "other", "project: .* bound to 'ranking'"),
        ({}, "", "billing", "the team 'search' has no project 'billing'"),  # another team's
        ({}, "", "x" * 1000, "has no project 'x{128}'"),
        ({}, "a\nb", "", "printable"),
        ({}, "a" * 129, "", "at most 128"),
    ],
)
def test_headers_that_cannot_be(key, user, project, message):
    with pytest.raises(Refusal) as refused:
        Principal.of(a_key(**key), user, project, PROJECTS)
    assert refused.value.code == "invalid_tollkeeper_header"
    assert re.search(message, refused.value.message)


@pytest.mark.parametrize(
    ("globs", "name", "allowed"),
    [
        ((), "gpt-5", True),
        (("gpt-5",), "gpt-5", True),
        (("gpt-5",), "gpt-5-mini", False),
        (("claude-*", "gpt-5*"), "gpt-5-mini", True),
        (("gpt-5*",), "GPT-5-mini", True),
        (("o[13]*",), "o3-mini", True),
    ],
)
def test_a_key_may_be_narrowed(globs, name, allowed):
    assert a_principal(models=globs).allows_model(name) is allowed
    assert a_principal(providers=globs).allows_provider(name) is allowed


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("organization/acme", ("acme",)),
        ("team/acme/search", ("acme", "search")),
        ("project/acme/search/ranking", ("acme", "search", "ranking")),
        ("user/acme/ana", ("acme", "ana")),
        ("user/acme/sales/ana", ("acme", "sales/ana")),
        ("key/search-prod", ("search-prod",)),
    ],
)
def test_scope_paths(path, names):
    kind, found = parse_scope(path)
    assert kind is SCOPE_KINDS[path.partition("/")[0]]
    assert found == names


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("department/acme", "one of organization, team, project, user, key"),
        ("", "one of organization"),
        ("team", "expected team/ORG/TEAM"),
        ("team/acme", "expected team/ORG/TEAM"),
        ("project/acme//ranking", "expected project/ORG/TEAM/PROJECT"),
        ("organization/", "expected organization/ORG"),
    ],
)
def test_scope_paths_that_cannot_match_are_errors(path, message):
    with pytest.raises(ValueError, match=message):
        parse_scope(path)
    with pytest.raises(ValueError, match=message):
        BudgetIndex([a_budget(scope=path)])


def test_the_budgets_of_a_call():
    everybody = a_budget(scope="organization/acme")
    team = a_budget(scope="team/acme/search")
    strangers = a_budget(scope="team/acme/billing")
    ranking = a_budget(scope="project/acme/search/ranking")
    ana = a_budget(scope="user/acme/ana")
    key = a_budget(scope="key/search-prod")
    dear = a_budget(scope="key/search-prod", models=("gpt-5-pro*",))
    other = a_budget(scope="key/search-prod", providers=("anthropic",))
    index = BudgetIndex([other, dear, key, ana, ranking, strangers, team, everybody])
    assert index.match(a_principal(), "openai", "gpt-5") == (everybody, team, key)
    assert index.match(a_principal(), "openai", "gpt-5-pro-2026") == (everybody, team, key, dear)
    assert index.match(a_principal(), "anthropic", "opus") == (everybody, team, key, other)
    assert index.match(a_principal("ana", "ranking"), "openai", "gpt-5") == (
        everybody, team, ranking, ana, key
    )  # fmt: skip


def test_matches_are_cached_within_bounds():
    index = BudgetIndex([a_budget()])
    principal = a_principal()
    first = index.match(principal, "openai", "gpt-5")
    assert index.match(principal, "openai", "gpt-5") is first
    for number in range(CACHED_MATCHES_MAX + 10):
        index.match(principal, "openai", f"model-{number}")
    assert len(index._cache) <= CACHED_MATCHES_MAX


# --- customers ------------------------------------------------------------------------------------

TEMPLATE = a_budget(id=1, each="customer", limit=5)
OTHERS = a_budget(id=2, scope="team/acme/other", each="customer")
PLAIN = a_budget(id=3)


def made(number: int, customer: str, template: int = 1, **fields: object) -> BudgetEntry:
    scope = f"customer/team/acme/search/{customer}"
    return a_budget(id=number, scope=scope, template=template, customer=customer, **fields)


def of(customer: str) -> Principal:
    return Principal.of(a_key(), "", "", PROJECTS, customer)


def test_a_template_applies_through_what_is_made_from_it():
    one, two = made(11, "one"), made(12, "two", models=("gpt-5",))
    index = BudgetIndex([TEMPLATE, OTHERS, PLAIN, one])
    assert index.match(of(""), "openai", "gpt-5") == (PLAIN,)
    assert index.match(of("one"), "openai", "gpt-5") == (PLAIN, one)
    assert index.unmet(of("two")) == (TEMPLATE.id,)
    assert index.match(of("two"), "openai", "gpt-5") == (PLAIN,)
    assert index.learn("two", [two]) == []
    assert index.unmet(of("two")) == ()
    found = index.match(of("two"), "openai", "gpt-5")
    assert found == (PLAIN, two)
    assert index.match(of("two"), "openai", "gpt-5") is found
    assert index.match(of("two"), "openai", "gpt-4o") == (PLAIN,)
    assert index.of(of("two")) == (PLAIN, two)


def test_the_customers_that_were_met_last_are_remembered():
    index = BudgetIndex([TEMPLATE], customers_max=8)
    for number in range(8):
        assert index.learn(f"c-{number}", [made(number, f"c-{number}")]) == []
    assert index.match(of("c-1"), "openai", "gpt-5") != ()
    for number in (0, *range(2, 8)):
        assert index.unmet(of(f"c-{number}")) == ()  # which is a use
    forgotten = index.learn("c-8", [made(8, "c-8")])
    assert [budget.customer for budget in forgotten] == ["c-1", "c-0"]
    assert index.unmet(of("c-2")) == ()
    assert index.unmet(of("c-1")) == (TEMPLATE.id,)
    assert index.match(of("c-1"), "openai", "gpt-5") == ()


def test_without_templates_customers_are_nothing():
    index = BudgetIndex([PLAIN])
    assert not index.templated
    found = index.match(of("one"), "openai", "gpt-5")
    assert index.match(of("two"), "openai", "gpt-5") is found
    assert index.unmet(of("one")) == ()
