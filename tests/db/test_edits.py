"""Changes with their entries in the audit log, on both engines."""

import pytest
from sqlalchemy import select

from db import catalog, catalog_places, edits
from db.audit import Actor, audit_rows
from db.catalog_budget_edits import budget_state, sources
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.errors import AlreadyThere, CatalogError, FromConfig, NotKnown
from db.models import ApiKey
from tests.factories import NOW_MS

ANN = Actor("admin", "192.0.2.7")
DECLARED = Declared(
    organizations=("acme",),
    teams=(("acme", "search"),),
    users=(("acme", "bob", ""),),
    keys=(DeclaredKey("prod", "ab" * 32, "acme", "search"),),
    budgets=(DeclaredBudget("team/acme/search", "usd", 10**9, "day"),),
)


@pytest.fixture
async def run(engine):
    """Runs one function after the other in one transaction."""
    async with engine.begin() as connection:
        await connection.run_sync(catalog.sync_config, DECLARED, NOW_MS)

        async def run(function, *arguments, **options):
            return await connection.run_sync(lambda sync: function(sync, *arguments, **options))

        yield run


async def log(run):
    return [(row.action, row.target) for row in await run(audit_rows, limit=100)]


async def test_a_place_comes_goes_and_comes_back_with_its_id(run):
    revision = await run(catalog.read_revision)
    organization = await run(edits.create_place, ANN, "organization", "globex", NOW_MS)
    team = await run(edits.create_place, ANN, "team", "rockets", NOW_MS, parent_id=organization.id)
    assert (team.path, team.source) == (("globex", "rockets"), "api")
    with pytest.raises(AlreadyThere, match="rockets"):
        await run(edits.create_place, ANN, "team", "rockets", NOW_MS, parent_id=organization.id)
    await run(edits.create_key, ANN, now_ms=NOW_MS, name="fuel", team="globex/rockets")
    await run(edits.delete_place, ANN, "team", team.id, NOW_MS + 1)
    assert await run(catalog_places.places, "team", organization="globex") == []
    again = await run(edits.create_place, ANN, "team", "rockets", NOW_MS, parent_id=organization.id)
    assert again.id == team.id
    keys = await run(catalog.list_keys, revoked=True)
    assert next(key for key in keys if key.name == "fuel").revoked_at_ms == NOW_MS + 1
    assert await run(catalog.read_revision) > revision
    assert (await log(run))[:2] == [
        ("team.create", "team/globex/rockets"),
        ("team.delete", "team/globex/rockets"),
    ]


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129, "new\nline"])
async def test_a_place_has_a_name_that_paths_can_hold(run, name):
    with pytest.raises(CatalogError):
        await run(edits.create_place, ANN, "organization", name, NOW_MS)


async def test_what_the_configuration_declares_is_changed_there(run):
    (team,) = await run(catalog_places.places, "team")
    (user,) = await run(catalog_places.places, "user")
    (budget_id,) = await run(sources)
    for change in (
        (edits.delete_place, ANN, "team", team.id, NOW_MS),
        (edits.set_email, ANN, user.id, "bob@acme.test", NOW_MS),
        (edits.delete_budget, ANN, budget_id, NOW_MS),
        (edits.revoke_key, ANN, "prod", NOW_MS),
        (edits.rotate_key, ANN, "prod", NOW_MS),
    ):
        with pytest.raises(FromConfig, match="configuration"):
            await run(*change)
    with pytest.raises(NotKnown):
        await run(edits.delete_place, ANN, "team", 10**6, NOW_MS)
    assert await log(run) == []


async def test_a_key_is_logged_without_its_secret(run):
    made = await run(edits.create_key, ANN, now_ms=NOW_MS, name="ci", team="search")
    rotated = await run(edits.rotate_key, ANN, "ci", NOW_MS)
    await run(edits.revoke_key, ANN, "ci", NOW_MS)
    rows = await run(audit_rows, limit=10)
    assert [row.action for row in rows] == ["key.revoke", "key.rotate", "key.create"]
    assert rows[0].before["revoked_at_ms"] is None
    assert rows[0].after["revoked_at_ms"] == NOW_MS
    assert (rows[2].before, rows[2].who, rows[2].origin) == (None, "admin", "192.0.2.7")
    for secret in (made.secret, rotated.secret, catalog.hash_key(rotated.secret)):
        assert secret not in repr(rows)


async def test_a_budget_is_made_changed_deleted_and_comes_back(run):
    budget = DeclaredBudget("key/prod", "usd", 5 * 10**9, "month", options={"clamp": True})
    budget_id = await run(edits.create_budget, ANN, budget, NOW_MS)
    with pytest.raises(AlreadyThere, match="already"):
        await run(edits.create_budget, ANN, budget, NOW_MS)
    await run(
        edits.change_budget, ANN, budget_id, NOW_MS, limit=7 * 10**9, options={"clamp": False}
    )
    (row, _) = await run(audit_rows, limit=10)
    assert (row.before["limit"], row.after["limit"]) == (5 * 10**9, 7 * 10**9)
    assert row.after["options"] == {"clamp": False}
    assert row.after["scope"] == "key/prod"
    await run(edits.delete_budget, ANN, budget_id, NOW_MS)
    assert await run(budget_state, budget_id) is None
    assert await run(edits.create_budget, ANN, budget, NOW_MS) == budget_id
    with pytest.raises(CatalogError, match="no such team"):
        await run(edits.create_budget, ANN, DeclaredBudget("team/acme/x", "usd", 1, "day"), NOW_MS)


async def test_the_log_is_read_page_by_page_and_filtered(run):
    for number in range(4):
        await run(edits.create_place, ANN, "organization", f"o{number}", NOW_MS + number)
    first = await run(audit_rows, limit=3)
    rest = await run(audit_rows, limit=3, below=first[-1].id)
    assert [row.target for row in (*first, *rest)] == [
        f"organization/o{number}" for number in (3, 2, 1, 0)
    ]
    assert len(await run(audit_rows, limit=9, target="organization/o2")) == 1
    assert len(await run(audit_rows, limit=9, since_ms=NOW_MS + 1, until_ms=NOW_MS + 3)) == 2
    assert await run(audit_rows, limit=9, who="nobody") == []


async def test_a_key_is_found_by_its_id(run):
    (key_id,) = await run(lambda sync: list(sync.execute(select(ApiKey.id)).scalars()))
    assert await run(edits.key_name, key_id) == "prod"
    (key,) = await run(catalog.key_page, limit=2, team="acme/search", key_id=key_id)
    assert (key.id, key.name, key.source) == (key_id, "prod", "config")
    assert await run(catalog.key_page, limit=2, after=key_id) == []
    assert await run(catalog.key_page, limit=2, team="acme/ads") == []
    with pytest.raises(NotKnown):
        await run(edits.key_name, key_id + 1)
