"""Declared objects as rows, and keys by command."""

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from db import catalog
from db.catalog_budgets import identity_of
from db.catalog_types import BudgetRow, Declared, DeclaredBudget, DeclaredKey, ProjectRow
from db.errors import CatalogError
from db.models import ApiKey, Budget, KeyBudget, Organization, Project, Team, User, Window
from tests.factories import NOW_MS, stored

SECRET = "tk-secret"
KEY = DeclaredKey("search-prod", catalog.hash_key(SECRET), "acme", "search", hint="cret")
CI_KEY = DeclaredKey("ranking-ci", "ab" * 32, "acme", "search", project="ranking", user="bob")
TEAM_BUDGET = DeclaredBudget("team/acme/search", "usd", 20 * 10**9, "day")
DECLARED = Declared(
    organizations=("acme", "empty"),
    teams=(("acme", "search"),),
    projects=(("acme", "search", "ranking"),),
    users=(("acme", "ann", "ann@acme.test"),),
    keys=(KEY, CI_KEY),
    budgets=(
        DeclaredBudget("organization/acme", "usd", 500 * 10**9, "month", timezone="Europe/Berlin"),
        TEAM_BUDGET,
        DeclaredBudget("project/acme/search/ranking", "tokens", 10**6, "hour"),
        DeclaredBudget("user/acme/ann", "requests", 100, "week", week_start=6),
        DeclaredBudget(
            "key/search-prod", "usd", 5 * 10**8, "request", options={"clamp": False, "alert": [50]}
        ),
    ),
)


@pytest.fixture
async def connection(engine):
    async with engine.begin() as connection:
        yield connection


@pytest.fixture
def sync(connection):
    async def sync(declared, now_ms=NOW_MS):
        return await connection.run_sync(catalog.sync_config, declared, now_ms)

    return sync


@pytest.fixture
def call(connection):
    async def call(function, *arguments, **options):
        return await connection.run_sync(lambda sync: function(sync, *arguments, **options))

    return call


async def column(connection, attribute):
    return sorted((await connection.execute(select(attribute))).scalars())


# --- declared objects ----------------------------------------------------------------------


async def test_declared_keys_carry_their_place(sync, call):
    assert await sync(DECLARED)
    prod, ci = await call(catalog.load_keys)
    assert (prod.name, prod.organization, prod.team, prod.project, prod.user) == (
        "search-prod", "acme", "search", "", "",
    )  # fmt: skip
    assert (prod.sha256, prod.expires_at, prod.revoked, prod.project_id) == (
        catalog.hash_key(SECRET), 0, False, 0,
    )  # fmt: skip
    assert (ci.project, ci.user, ci.team_id) == ("ranking", "bob", prod.team_id)
    assert await call(catalog.load_projects) == [ProjectRow(ci.project_id, ci.team_id, "ranking")]


async def test_declared_budgets_carry_their_scope(sync, call):
    await sync(DECLARED)
    budgets = await call(catalog.load_budgets)
    assert [(b.scope, b.unit, b.limit, b.period) for b in budgets] == [
        (b.scope, b.unit, b.limit, b.period) for b in DECLARED.budgets
    ]
    assert budgets[0].timezone == "Europe/Berlin"
    assert budgets[3].week_start == 6
    defaults = BudgetRow._field_defaults
    assert budgets[4]._asdict() | {"clamp": True} == budgets[4]._asdict() | defaults


async def test_same_again_changes_nothing(sync, call):
    await sync(DECLARED)
    before = [await call(load) for load in (catalog.load_keys, catalog.load_budgets)]
    assert not await sync(DECLARED, NOW_MS + 1)
    assert [await call(load) for load in (catalog.load_keys, catalog.load_budgets)] == before


async def test_absent_ones_go_and_come_back_with_their_ids(sync, call, connection):
    await sync(DECLARED)
    before = [await call(load) for load in (catalog.load_keys, catalog.load_budgets)]
    assert await sync(Declared())
    assert all(key.revoked for key in await call(catalog.load_keys))
    assert await call(catalog.load_budgets) == []
    assert await call(catalog.load_projects) == []
    for model in (Organization, Team, Project, User, Budget):
        assert set(await column(connection, model.tombstoned_at_ms)) == {NOW_MS}
    assert not await sync(Declared())
    assert await sync(DECLARED)
    assert [await call(load) for load in (catalog.load_keys, catalog.load_budgets)] == before


async def test_other_sources_are_left_alone(sync, call):
    await sync(DECLARED)
    made = await call(catalog.create_key, name="mine", team="search", now_ms=NOW_MS)
    await sync(DECLARED)
    assert made.name in {key.name for key in await call(catalog.list_keys)}


async def test_keys_of_a_team_that_is_gone_are_revoked_as_long_as_it_is(sync, call):
    await sync(DECLARED)
    await call(catalog.create_key, name="mine", team="search", now_ms=NOW_MS)
    await sync(Declared())
    assert all(key.revoked for key in await call(catalog.load_keys))
    assert await call(catalog.list_keys) == []
    await sync(DECLARED)
    assert not any(key.revoked for key in await call(catalog.load_keys))


async def test_changed_values_are_stored(sync, call):
    await sync(DECLARED)
    key = replace(
        KEY, models=("gpt-*",), providers=("openai",), refusal_status=402, expires_at_ms=2_000
    )
    assert await sync(replace(DECLARED, keys=(key, CI_KEY)))
    row = (await call(catalog.load_keys))[0]
    assert (row.models, row.providers, row.refusal_status, row.expires_at) == (
        ("gpt-*",), ("openai",), 402, 2,
    )  # fmt: skip


async def test_header_users_become_declared_ones(sync, connection):
    await sync(replace(DECLARED, users=(), budgets=()))
    organization_id = (await connection.execute(select(Organization.id))).scalars().first()
    await connection.run_sync(
        stored, User,
        organization_id=organization_id, name="ann", source="header", created_at_ms=1,
    )  # fmt: skip
    await sync(DECLARED)
    rows = await connection.execute(select(User.name, User.source, User.email))
    assert sorted(rows.all()) == [("ann", "config", "ann@acme.test"), ("bob", "config", "")]


# --- declared keys: names and secrets ------------------------------------------------------


async def ids_by_name(call):
    return {key.name: key.id for key in await call(catalog.load_keys) if not key.revoked}


async def test_new_secret_keeps_the_key(sync, call):
    await sync(DECLARED)
    before = await ids_by_name(call)
    await sync(replace(DECLARED, keys=(replace(KEY, sha256="cd" * 32), CI_KEY)))
    assert await ids_by_name(call) == before
    assert (await call(catalog.load_keys))[0].sha256 == "cd" * 32


async def test_renamed_key_keeps_its_id(sync, call):
    await sync(replace(DECLARED, budgets=()))
    before = await ids_by_name(call)
    await sync(replace(DECLARED, budgets=(), keys=(replace(KEY, name="prod"), CI_KEY)))
    assert await ids_by_name(call) == {
        "prod": before["search-prod"], "ranking-ci": before["ranking-ci"],
    }  # fmt: skip


async def test_two_keys_trade_secrets(sync, call):
    await sync(DECLARED)
    traded = (replace(KEY, sha256=CI_KEY.sha256), replace(CI_KEY, sha256=KEY.sha256))
    await sync(replace(DECLARED, keys=traded))
    assert [key.sha256 for key in await call(catalog.load_keys)] == [CI_KEY.sha256, KEY.sha256]


async def test_secret_of_a_retired_key_can_be_declared_under_another_name(sync, call):
    await sync(DECLARED)
    new = replace(CI_KEY, sha256=KEY.sha256)
    await sync(replace(DECLARED, keys=(new,), budgets=()))
    (key,) = [key for key in await call(catalog.load_keys) if not key.revoked]
    assert (key.name, key.sha256) == ("ranking-ci", KEY.sha256)


async def test_budget_of_a_key_name_follows_the_name(sync, call, connection):
    """The old key was renamed, a new one has its name: the budget is the new one's."""
    await sync(DECLARED)
    old = (await ids_by_name(call))["search-prod"]
    renamed = replace(KEY, name="old-prod")
    await sync(replace(DECLARED, keys=(renamed,), budgets=()))
    fresh = replace(KEY, sha256="ef" * 32)
    await sync(replace(DECLARED, keys=(renamed, fresh)))
    ids = await ids_by_name(call)
    assert ids["old-prod"] == old
    assert await column(connection, KeyBudget.key_id) == [ids["search-prod"]]
    assert "key/search-prod" in [budget.scope for budget in await call(catalog.load_budgets)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": (KEY, KEY)}, "key 'search-prod' is declared twice"),
        (
            {"keys": (KEY, replace(CI_KEY, sha256=KEY.sha256))},
            "keys 'search-prod' and 'ranking-ci' have the same secret",
        ),
        ({"keys": (replace(KEY, team="sales"),)}, "no such team acme/sales"),
        ({"keys": (replace(KEY, project="x"),)}, "no such project 'x'"),
        ({"keys": (replace(KEY, name="a\nb"),)}, "1 to 128 printable"),
        ({"organizations": ("a/b",)}, "'a/b': no slash"),
        ({"users": (("acme", "u" * 129, ""),)}, "user 'u+': 1 to 128"),
        ({"projects": (("acme", "search", ""),)}, "project ''"),
        (
            {"budgets": (replace(TEAM_BUDGET, scope="team/acme/sales"),)},
            "'team/acme/sales': no such team",
        ),
        (
            {"budgets": (replace(TEAM_BUDGET, scope="galaxy/acme"),)},
            "'galaxy' is not a kind of scope",
        ),
        (
            {"budgets": (TEAM_BUDGET, replace(TEAM_BUDGET, limit=1))},
            "budget on team/acme/search in usd per day is declared twice",
        ),
    ],
)
async def test_what_cannot_be_declared_is_named(sync, change, message):
    with pytest.raises(CatalogError, match=message):
        await sync(replace(DECLARED, **change))


async def test_secret_of_a_key_made_by_command_cannot_be_declared(sync, call):
    await sync(DECLARED)
    made = await call(catalog.create_key, name="mine", team="search", now_ms=NOW_MS)
    stolen = replace(KEY, name="theirs", sha256=catalog.hash_key(made.secret))
    with pytest.raises(CatalogError, match="its secret is already that of key 'mine'"):
        await sync(replace(DECLARED, keys=(KEY, CI_KEY, stolen)))


# --- budgets -------------------------------------------------------------------------------


async def window_of(connection, scope, **values):
    budget_id = (
        await connection.execute(select(Budget.id).where(Budget.identity.startswith(scope)))
    ).scalar_one()
    await connection.run_sync(stored, Window, budget_id=budget_id, starts_at=0, **values)
    return budget_id


async def test_revived_budget_keeps_its_windows(sync, connection):
    await sync(DECLARED)
    budget_id = await window_of(connection, "team/", committed=7)
    await sync(replace(DECLARED, budgets=()))
    await sync(DECLARED)
    rows = await connection.execute(select(Window.budget_id, Window.committed))
    assert rows.all() == [(budget_id, 7)]


@pytest.mark.parametrize(
    ("committed", "overage", "limit", "kept"),
    [(50, 0, 40, 50), (50, 15, 40, 0), (50, 5, 40, 45), (50, 0, 60, 0)],
)
async def test_lowered_limit_remembers_what_was_above_it(
    sync, call, connection, committed, overage, limit, kept
):
    await sync(replace(DECLARED, budgets=(replace(TEAM_BUDGET, limit=100),)))
    await window_of(connection, "team/", committed=committed, overage=overage)
    assert await sync(replace(DECLARED, budgets=(replace(TEAM_BUDGET, limit=limit),)))
    assert (await call(catalog.load_budgets))[0].limit == limit
    assert await column(connection, Window.lowered_from) == [kept]


def test_identity_ignores_limit_and_options_and_order_of_filters():
    budget = replace(TEAM_BUDGET, models=("a*", "b*"))
    same = replace(budget, models=("b*", "a*"), limit=1, options={"clamp": False})
    assert identity_of(budget) == identity_of(same)
    for name, value in {
        "scope": "team/x", "unit": "tokens", "period": "hour", "timezone": "Asia/Tokyo",
        "week_start": 1, "month_day": 2, "models": (), "providers": ("x",),
    }.items():  # fmt: skip
        assert identity_of(replace(budget, **{name: value})) != identity_of(budget)


def test_long_identities_are_cut_and_stay_distinct():
    one, two = (
        identity_of(replace(TEAM_BUDGET, models=tuple(f"{n}-{last}" for n in range(200))))
        for last in "ab"
    )
    assert len(one) == len(two) == 512
    assert one != two


# --- keys by command -----------------------------------------------------------------------


async def test_created_key_is_stored_as_its_hash(sync, call, connection):
    await sync(DECLARED)
    made = await call(
        catalog.create_key, name="mine", project="acme/search/ranking", user="zoe",
        expires_at_ms=NOW_MS, models=("gpt-*",), now_ms=NOW_MS,
    )  # fmt: skip
    assert made.secret.startswith("tk-")
    assert len(made.secret) >= 3 + 32
    row = next(key for key in await call(catalog.load_keys) if key.id == made.id)
    assert row.sha256 == catalog.hash_key(made.secret)
    assert (row.project, row.user, row.models) == ("ranking", "zoe", ("gpt-*",))
    (listed,) = [key for key in await call(catalog.list_keys) if key.name == "mine"]
    assert (listed.hint, listed.source) == (made.secret[-4:], "cli")
    stored_values = (await connection.execute(select(ApiKey.__table__))).all()
    assert made.secret not in repr(stored_values)


async def test_tombstoned_user_revives_with_a_key(sync, call, connection):
    await sync(DECLARED)
    await connection.execute(update(User).values(tombstoned_at_ms=1))
    await call(catalog.create_key, name="mine", team="search", user="ann", now_ms=NOW_MS)
    rows = await connection.execute(select(User.name).where(User.tombstoned_at_ms.is_(None)))
    assert rows.scalars().all() == ["ann"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "search-prod", "team": "search"}, "named 'search-prod' exists already"),
        ({"name": "", "team": "search"}, "key ''"),
        ({"name": "x"}, "needs a team or a project"),
        ({"name": "x", "team": "sales"}, "no such team: 'sales'"),
        ({"name": "x", "team": "acme/sales"}, "no such team: 'acme/sales'"),
        ({"name": "x", "team": "search", "project": "p"}, "no such project: 'search/p'"),
        ({"name": "x", "team": "twin"}, "team 'twin' is ambiguous: acme/twin, empty/twin"),
    ],
)
async def test_keys_that_cannot_be_made(sync, call, options, message):
    await sync(replace(DECLARED, teams=(*DECLARED.teams, ("acme", "twin"), ("empty", "twin"))))
    with pytest.raises(CatalogError, match=message):
        await call(catalog.create_key, now_ms=NOW_MS, **options)


async def test_revoked_key_is_listed_only_if_asked_for(sync, call):
    await sync(DECLARED)
    await call(catalog.create_key, name="mine", team="acme/search", now_ms=NOW_MS)
    await call(catalog.revoke_key, "mine", NOW_MS)
    assert "mine" not in {key.name for key in await call(catalog.list_keys)}
    assert "mine" in {key.name for key in await call(catalog.list_keys, revoked=True)}
    assert [key.revoked for key in await call(catalog.load_keys)] == [False, False, True]


async def test_rotated_key_keeps_id_and_name(sync, call):
    await sync(DECLARED)
    old = await call(catalog.create_key, name="mine", team="search", now_ms=NOW_MS)
    new = await call(catalog.rotate_key, "mine")
    assert (new.id, new.name) == (old.id, old.name)
    hashes = {key.sha256 for key in await call(catalog.load_keys)}
    assert catalog.hash_key(new.secret) in hashes
    assert catalog.hash_key(old.secret) not in hashes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "no key is named 'nobody'"),
        ("search-prod", "'search-prod' is declared in the configuration"),
        ("gone", "'gone' is revoked already"),
    ],
)
async def test_keys_commands_may_not_change(sync, call, name, message):
    await sync(DECLARED)
    await call(catalog.create_key, name="gone", team="search", now_ms=NOW_MS)
    await call(catalog.revoke_key, "gone", NOW_MS)
    with pytest.raises(CatalogError, match=message):
        await call(catalog.revoke_key, name, NOW_MS)
    with pytest.raises(CatalogError, match=message):
        await call(catalog.rotate_key, name)


async def test_every_change_by_command_bumps_the_revision(sync, call):
    await sync(DECLARED)
    seen = [await call(catalog.read_revision)]
    await call(catalog.create_key, name="mine", team="search", now_ms=NOW_MS)
    seen.append(await call(catalog.read_revision))
    await call(catalog.rotate_key, "mine")
    seen.append(await call(catalog.read_revision))
    await call(catalog.revoke_key, "mine", NOW_MS)
    seen.append(await call(catalog.read_revision))
    seen.append(await call(catalog.bump_revision))
    assert seen == sorted(set(seen))


def test_secrets_differ_and_short_ones_give_no_hint():
    assert len({catalog.new_secret() for _ in range(100)}) == 100
    assert catalog.hint_of("tk-0123456789abcdef") == "cdef"
    assert catalog.hint_of("short") == ""
