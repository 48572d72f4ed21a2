"""The admin API end to end, in one process: who may do what, and what it says."""

import asyncio
import csv
import io
import json
import time
from functools import partial
from uuid import UUID

import msgspec
import pytest

from db.alert_configs import load_thresholds
from db.alerts import NewAlert, raise_alert
from db.catalog import hash_key
from db.customers import meet
from db.models import Epoch, Window
from db.refusals import HOUR_MS, Counted, Group, add_refusals
from proxy.control.api.endpoints import ENDPOINTS
from proxy.control.api.table import PREFIX
from proxy.control.figures import starts_at
from proxy.control.identity import Role
from tests.factories import a_lease, stored
from tests.proxy.control.test_control import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_RAISE = {"by": "1", "until": "2099-01-31"}


async def asked(client, method, path, **options):
    answer = await client.request(method, path, **options)
    return answer.status_code, answer.json()


async def ids(client, path, name):
    items = (await client.get(path)).json()["items"]
    return {item[name]: item["id"] for item in items}


# --- who may do what -----------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")
async def test_every_route_needs_a_key_and_changes_need_the_admins(site, endpoint):
    path = endpoint.path.replace("{id}", "1").replace("{request_id}", str(UUID(int=1)))
    status, body = await asked(site.nobody, endpoint.method, path)
    assert (status, body["error"]["code"]) == (401, "unauthorized")
    status, body = await asked(site.viewer, endpoint.method, path)
    assert (status == 403) == (endpoint.role is Role.ADMIN)
    is_change = endpoint.method != "GET" and endpoint.path != "/explain"
    assert not is_change or endpoint.role is Role.ADMIN


async def test_the_document_needs_a_key_too(site):
    assert (await site.nobody.get("/openapi.json")).status_code == 401
    document = (await site.viewer.get("/openapi.json")).json()
    listed = {
        (method.upper(), path.removeprefix(PREFIX))
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert listed == {(each.method, each.path) for each in ENDPOINTS}


async def test_what_nobody_serves_is_an_error_of_the_same_shape(site):
    status, body = await asked(site.admin, "GET", "/nothing")
    assert (status, body["error"]["code"]) == (404, "unknown_route")
    status, body = await asked(site.admin, "PUT", "/keys")
    assert (status, body["error"]["code"]) == (405, "method_not_allowed")


async def test_a_viewer_sees_the_figures_of_one_team_and_no_other(site):
    _, rows = await asked(site.viewer, "GET", "/report?by=team")
    assert [row["team"] for row in rows] == ["search"]
    assert len((await asked(site.admin, "GET", "/report?by=team"))[1]) == 2
    for query in ("team=ads", "team=acme/ads"):
        assert (await asked(site.viewer, "GET", f"/report?{query}"))[0] == 403
    (row,) = (await asked(site.viewer, "GET", "/report?key=ads-prod&by=total"))[1]
    assert row["calls"] == 0
    for others, nobodys in (("key=ads-prod", "key=nope"), ("team=ads", "team=nope")):
        answers = [  # a name says nothing about whether others have it
            [await asked(site.viewer, "GET", f"{path}{query}") for path in ("/report?", "/calls?")]
            for query in (others, nobodys)
        ]
        assert answers[0] == answers[1]
    assert (await asked(site.admin, "GET", "/report?key=nope"))[0] == 400
    budgets = (await asked(site.viewer, "GET", "/budgets"))[1]["items"]
    assert {each["scope"] for each in budgets} == {"team/acme/search", "key/prod"}
    keys = (await asked(site.viewer, "GET", "/keys"))[1]["items"]
    assert {each["name"] for each in keys} == {"prod"}
    assert (await asked(site.viewer, "GET", "/keys?team=acme/ads"))[0] == 403
    assert len((await asked(site.viewer, "GET", "/teams"))[1]["items"]) == 1
    exhausted = (await asked(site.viewer, "GET", "/report/exhaustion"))[1]
    assert {row["scope"] for row in exhausted} == {"team/acme/search", "key/prod"}
    (call,) = (await asked(site.viewer, "GET", "/calls"))[1]["items"]
    assert call["team"] == "search"
    calls = (await asked(site.admin, "GET", "/calls"))[1]["items"]
    others = next(each for each in calls if each["team"] == "ads")["request_id"]
    assert (await asked(site.viewer, "GET", f"/calls/{others}"))[0] == 404
    hidden = (await ids(site.admin, "/keys", "name"))["ads-prod"]
    assert (await asked(site.viewer, "GET", f"/keys/{hidden}"))[0] == 404
    hidden = (await ids(site.admin, "/budgets", "scope"))["organization/acme"]
    assert (await asked(site.viewer, "GET", f"/budgets/{hidden}"))[0] == 404


# --- keys ----------------------------------------------------------------------------------


async def test_a_key_is_made_shown_once_used_rotated_and_revoked(site):
    status, made = await asked(
        site.admin, "POST", "/keys", json={"name": "ci", "team": "acme/search", "models": ["gpt*"]}
    )
    assert status == 201
    key_id, secret = made["key"]["id"], made["secret"]
    assert made["key"]["source"] == "api"
    digest = hash_key(secret)
    await until(lambda: any(key.sha256 == digest for key in site.control.snapshot.keys))
    status, rotated = await asked(site.admin, "POST", f"/keys/{key_id}/rotate", json={})
    assert (status, rotated["key"]["id"]) == (200, key_id)
    assert rotated["secret"] != secret
    seen = [
        (await site.admin.get(path)).text
        for path in ("/keys", f"/keys/{key_id}", "/audit", "/keys?revoked=true")
    ]
    for text in seen:
        assert secret not in text
        assert rotated["secret"] not in text
        assert hash_key(rotated["secret"]) not in text
    assert (await asked(site.admin, "DELETE", f"/keys/{key_id}"))[0] == 200
    assert (await asked(site.admin, "DELETE", f"/keys/{key_id}"))[0] == 409
    assert "ci" not in await ids(site.admin, "/keys", "name")
    assert "ci" in await ids(site.admin, "/keys?revoked=1", "name")
    status, body = await asked(site.admin, "POST", "/keys", json={"name": "ci", "team": "search"})
    assert (status, body["error"]["code"]) == (409, "conflict")


async def test_what_the_configuration_declares_is_read_only_and_says_so(site):
    key_id = (await ids(site.admin, "/keys", "name"))["prod"]
    team_id = (await ids(site.admin, "/teams", "name"))["search"]
    budget = (await asked(site.admin, "GET", "/budgets?scope=team/acme/search"))[1]["items"][0]
    assert budget["source"] == "config"
    for method, path, body in (
        ("DELETE", f"/keys/{key_id}", None),
        ("POST", f"/keys/{key_id}/rotate", {}),
        ("DELETE", f"/teams/{team_id}", None),
        ("PATCH", f"/budgets/{budget['id']}", {"limit_usd": "2"}),
        ("DELETE", f"/budgets/{budget['id']}", None),
    ):
        status, answer = await asked(
            site.admin, method, path, **({"json": body} if body is not None else {})
        )
        assert (status, answer["error"]["code"]) == (409, "declared_in_config")
        assert "configuration" in answer["error"]["message"]


# --- places and budgets --------------------------------------------------------------------


async def test_a_hierarchy_is_made_and_deleted(site):
    _, organization = await asked(site.admin, "POST", "/organizations", json={"name": "globex"})
    _, team = await asked(
        site.admin, "POST", "/teams", json={"organization_id": organization["id"], "name": "rocket"}
    )
    _, project = await asked(
        site.admin, "POST", "/projects", json={"team_id": team["id"], "name": "moon"}
    )
    assert (project["organization"], project["team"], project["name"]) == (
        "globex", "rocket", "moon",
    )  # fmt: skip
    _, user = await asked(
        site.admin, "POST", "/users", json={"organization_id": organization["id"], "name": "ann"}
    )
    _, user = await asked(site.admin, "PATCH", f"/users/{user['id']}", json={"email": "a@b.test"})
    assert user["email"] == "a@b.test"
    assert (
        await asked(site.admin, "POST", "/teams", json={"organization_id": 10**6, "name": "x"})
    )[0] == 404
    assert (await asked(site.admin, "DELETE", f"/organizations/{organization['id']}"))[0] == 200
    assert "rocket" not in await ids(site.admin, "/teams", "name")
    assert (await asked(site.admin, "DELETE", f"/projects/{project['id']}"))[0] == 404


async def test_a_budget_is_made_changed_and_deleted_and_agrees_with_the_report(site):
    given = {"scope": "organization/acme", "period": "year", "limit_usd": "0.000000001"}
    status, made = await asked(site.admin, "POST", "/budgets", json=given)
    assert (status, made["limit"], made["source"], made["unit"]) == (
        201, "0.000000001", "api", "usd",
    )  # fmt: skip
    path = f"/budgets/{made['id']}"
    assert (await asked(site.admin, "POST", "/budgets", json=given))[0] == 409
    status, body = await asked(site.admin, "PATCH", path, json={"limit_tokens": 5})
    assert (status, body["error"]["param"]) == (400, "limit_tokens")
    change = {"limit_usd": "12.5", "hold": "learned", "hold_wait_ms": 0}
    _, changed = await asked(site.admin, "PATCH", path, json=change)
    assert (changed["limit"], changed["hold"], changed["hold_wait_ms"]) == ("12.5", "learned", 0)
    await until(lambda: any(b.limit == 12_500_000_000 for b in site.control.snapshot.budgets))
    assert (await asked(site.admin, "DELETE", path))[0] == 200
    assert (await asked(site.admin, "GET", path))[0] == 404
    (standing,) = (await asked(site.admin, "GET", "/budgets?scope=team/acme/search"))[1]["items"]
    (row,) = (await asked(site.admin, "GET", "/report?team=search"))[1]
    assert standing["spent"] == row["cost_usd"] == "0.0000015"


async def test_a_trial_budget_is_enforced_later_and_gives_cheaper_models(site):
    cheaper = {"gpt-5*": "gpt-5-mini"}
    given = {"scope": "team/acme/ads", "period": "week", "limit_usd": "3", "enforce": False}
    status, made = await asked(site.admin, "POST", "/budgets", json={**given, "downgrade": cheaper})
    assert (status, made["enforce"], made["would_refuse"]) == (201, False, 0)
    assert (made["downgrade"], made["clamp"]) == (cheaper, False)
    path = f"/budgets/{made['id']}"
    change = {"enforce": True, "downgrade": {}}
    _, changed = await asked(site.admin, "PATCH", path, json=change)
    assert (changed["enforce"], changed["would_refuse"], changed["downgrade"]) == (True, None, {})
    assert changed["clamp"]  # as it was asked for at first
    await asked(site.admin, "DELETE", path)


async def test_a_budget_for_each_customer(site):
    given = {"scope": "team/acme/search", "period": "day", "limit_usd": "3", "each": "customer"}
    status, made = await asked(site.admin, "POST", "/budgets", json=given)
    assert (status, made["each"], made["tracked"]) == (201, "customer", 0)
    path, usual = f"/budgets/{made['id']}", {"tracked_max": 10_000, "beyond": "refuse"}
    assert made["customers"] == usual | {"required": False, "from_body": False}
    other = {"tracked_max": 5, "beyond": "share", "required": True, "from_body": True}
    _, changed = await asked(site.admin, "PATCH", path, json={"customers": other})
    assert changed["customers"] == other
    wanted = [(made["id"], customer) for customer in ("c-1", "<c-2>")]
    met = await site.control.parts.transactions.run(lambda c: meet(c, wanted, 0))
    first = met.budgets[made["id"], "c-1"]
    await site.control.parts.transactions.run(lambda c: spent_today(c, first, 7))
    listed = (await asked(site.viewer, "GET", f"{path}/customers"))[1]
    assert listed["tracked"] == 2
    assert [(row["customer"], row["spent"], row["source"]) for row in listed["items"]] == [
        ("c-1", "0.000000007", "template"), ("<c-2>", "0", "template"),
    ]  # fmt: skip
    assert listed["items"][0]["scope"] == "customer/team/acme/search/c-1"
    top = (await asked(site.admin, "GET", f"{path}/customers?top=1"))[1]["items"]
    assert [row["customer"] for row in top] == ["c-1"]
    assert (await asked(site.admin, "GET", path))[1]["tracked"] == 2
    mine = f"/budgets/{first.id}"
    assert (await asked(site.admin, "PATCH", mine, json={"limit_usd": "9"}))[0] == 400
    assert (await asked(site.admin, "POST", f"{path}/raises", json=GOOD_RAISE))[0] == 400
    await _raise_of_a_customer(site, path)
    question = {"key": "prod", "request": {"model": "gpt-5", "messages": []}}
    explained = (await asked(site.admin, "POST", "/explain", json=question))[1]
    assert explained["code"] == "customer_required"
    named = question | {"request": question["request"] | {"user": "c-1"}}
    status, answer = await asked(site.admin, "POST", "/explain", json=named)
    assert (status, "is for the customer c-1" in answer["error"]["message"]) == (400, True)
    for customer in ("c-1", "c-3"):
        lines = await asked(site.viewer, "POST", "/explain", json=question | {"customer": customer})
        (line,) = [row for row in lines[1]["lines"] if "/customer" in f"/{row['scope']}"]
        spent = "0.000000007" if customer == "c-1" else "0"
        assert (line["scope"], line["spent"]) == (f"customer/team/acme/search/{customer}", spent)
    await asked(site.admin, "DELETE", path)
    assert (await asked(site.admin, "GET", f"{path}/customers"))[0] == 404


async def _raise_of_a_customer(site, path):
    wanted = GOOD_RAISE | {"customer": "c-9"}  # who has not called yet
    status, made = await asked(site.admin, "POST", f"{path}/raises", json=wanted)
    assert (status, made["customer"], made["in_force"]) == (201, "c-9", True)
    assert made["scope"] == "customer/team/acme/search/c-9"
    listed = (await asked(site.viewer, "GET", "/raises"))[1]["items"]
    assert [row for row in listed if row["customer"]] == [made]
    rows = (await asked(site.viewer, "GET", f"{path}/customers"))[1]["items"]
    (row,) = [row for row in rows if row["customer"] == "c-9"]
    assert (row["limit"], row["raised"]) == ("4", "1")
    (entry,) = (await asked(site.admin, "GET", "/audit?limit=1"))[1]["items"]
    assert entry["after"]["scope"] == made["scope"]
    for customer in ("<c>", "*", " ", "c" * 129):
        other = GOOD_RAISE | {"customer": customer}
        assert (await asked(site.admin, "POST", f"{path}/raises", json=other))[0] == 400
    (ads,) = (await asked(site.admin, "GET", "/budgets?scope=team/acme/ads"))[1]["items"]
    plain = await asked(site.admin, "POST", f"/budgets/{ads['id']}/raises", json=wanted)
    assert (plain[0], "not a budget for each customer" in plain[1]["error"]["message"]) == (
        400,
        True,
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"each": "customer", "period": "request"}, "each"),
        ({"each": "customer", "alert_exhaustion_h": [5]}, "alert_exhaustion_h"),
        ({"customers": {"tracked_max": 5}}, "customers"),
    ],
)
async def test_what_no_budget_for_each_customer_has(site, fields, param):
    given = {"scope": "team/acme/search", "limit_usd": "3", **fields}
    status, body = await asked(site.admin, "POST", "/budgets", json=given)
    assert (status, body["error"]["param"]) == (400, param)
    (ads,) = (await asked(site.admin, "GET", "/budgets?scope=team/acme/ads"))[1]["items"]
    change = {"customers": {"tracked_max": 5}}
    status, body = await asked(site.admin, "PATCH", f"/budgets/{ads['id']}", json=change)
    assert (status, body["error"]["param"]) == (400, "customers")


def spent_today(connection, budget, amount):
    starts = starts_at(budget, time.time())
    window_id = stored(connection, Window, budget_id=budget.id, starts_at=starts, committed=amount)
    epoch_id = stored(
        connection, Epoch, host_id="h", boot_id="b", state="open", opened_at_ms=0, seen_at_ms=0
    )
    a_lease(connection, window_id, epoch_id, amount, amount)


async def test_a_limit_is_raised_for_a_while(site):
    (ads,) = (await asked(site.admin, "GET", "/budgets?scope=team/acme/ads"))[1]["items"]
    path = f"/budgets/{ads['id']}"
    wanted = {"by": "500", "until": "2099-01-31", "reason": "a <b>launch</b>"}
    status, made = await asked(site.admin, "POST", f"{path}/raises", json=wanted)
    assert (status, made["by"], made["unit"], made["in_force"]) == (201, 500, "tokens", True)
    assert (made["until"], made["made_by"]) == ("2099-02-01T00:00:00.000Z", "admin")
    _, raised = await asked(site.admin, "GET", path)
    assert (raised["limit"], raised["raised"]) == (1_500, 500)
    (listed,) = (await asked(site.admin, "GET", "/raises"))[1]["items"]
    assert listed == made
    assert (await asked(site.viewer, "GET", "/raises"))[1]["items"] == []  # of another team
    (entry,) = (await asked(site.admin, "GET", "/audit?limit=1"))[1]["items"]
    assert (entry["action"], entry["after"]["amount"]) == ("budget.raise", 500)
    back = {"by": "-500", "until": made["until"]}
    assert (await asked(site.admin, "POST", f"{path}/raises", json=back))[0] == 201
    assert (await asked(site.admin, "GET", path))[1]["limit"] == 1_000
    first = (await asked(site.admin, "GET", "/raises?limit=1"))[1]
    assert first["items"] == [made]
    second = (await asked(site.admin, "GET", f"/raises?limit=1&cursor={first['next']}"))[1]
    assert [each["by"] for each in second["items"]] == [-500]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"by": "0", "until": "2099-01-31"}, 400),
        ({"by": "0.5", "until": "2099-01-31"}, 400),  # of tokens
        ({"by": "1e9", "until": "2099-01-31"}, 400),
        ({"by": "9" * 19, "until": "2099-01-31"}, 400),
        ({"by": "-1", "until": "2099-01-31"}, 400),
        ({"by": "1", "until": "1999-01-31"}, 400),
        ({"by": "1", "until": "9999-12-31"}, 400),
        ({"by": "1", "until": "someday"}, 400),
        ({"by": "1", "until": "friday", "reason": "\n"}, 400),
        ({"by": "1"}, 400),
    ],
)
async def test_a_raise_that_makes_no_sense_is_refused(site, body, status):
    (ads,) = (await asked(site.admin, "GET", "/budgets?scope=team/acme/ads"))[1]["items"]
    found, answer = await asked(site.admin, "POST", f"/budgets/{ads['id']}/raises", json=body)
    assert (found, bool(answer["error"]["message"])) == (status, True)
    nobody = await asked(site.admin, "POST", "/budgets/999999/raises", json={**GOOD_RAISE})
    assert nobody[0] == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scope": "team/acme/search", "limit_usd": "1", "downgrade": {"a": "b*"}}, "downgrade"),
        ({"scope": "team/acme/search", "limit_usd": "1", "downgrade": {"a": "b\n"}}, "downgrade"),
        ({"scope": "team/acme/search"}, None),
        ({"scope": "team/acme/nobody", "limit_usd": "1"}, None),
        ({"scope": "planet/earth", "limit_usd": "1"}, None),
        ({"scope": "team/acme/search", "limit_usd": "1e-10"}, "limit_usd"),
        ({"scope": "team/acme/search", "limit_usd": "-1"}, "limit_usd"),
        ({"scope": "team/acme/search", "limit_usd": "NaN"}, "limit_usd"),
        ({"scope": "team/acme/search", "limit_usd": 0.1}, "limit_usd"),
        ({"scope": "team/acme/search", "limit_usd": "1", "limit_tokens": 1}, None),
        ({"scope": "team/acme/search", "limit_tokens": 2**63}, "limit_tokens"),
        ({"scope": "team/acme/search", "limit_usd": "1", "timezone": "Mars"}, None),
        ({"scope": "team/acme/search", "limit_usd": "1", "colour": "red"}, "colour"),
        ({"scope": "team/acme/\0", "limit_usd": "1"}, "scope"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(site, body, param):
    status, answer = await asked(site.admin, "POST", "/budgets", json=body)
    assert (status, answer["error"]["param"]) == (400, param)


# --- calls, reports, prices ----------------------------------------------------------------


async def test_a_call_is_explained_line_by_line(site):
    _, found = await asked(site.admin, "GET", f"/calls/{UUID(bytes=site.call_id)}")
    assert found["cost_usd"] == found["net_usd"] == found["call"]["cost_usd"] == "0.0000015"
    assert [(line["item"], line["count"]) for line in found["lines"]] == [
        ("input", 12), ("output", 34),
    ]  # fmt: skip
    assert {each["scope"] for each in found["budgets"]} == {"team/acme/search"}
    assert (await asked(site.admin, "GET", f"/calls/{UUID(int=7)}"))[0] == 404
    assert (await asked(site.admin, "GET", "/calls/nonsense"))[0] == 400


async def test_lists_come_in_pages(site):
    for path in ("/calls", "/keys", "/budgets", "/audit"):
        whole = (await asked(site.admin, "GET", f"{path}?limit=3"))[1]["items"]
        assert len(whole) > 1
        paged, cursor = [], ""
        while cursor is not None and len(paged) < len(whole):
            _, page = await asked(site.admin, "GET", f"{path}?limit=1&cursor={cursor}")
            paged += page["items"]
            cursor = page["next"]
        assert paged == whole[: len(paged)]
        status, answer = await asked(site.admin, "GET", f"{path}?cursor=nonsense")
        assert (status, answer["error"]["param"]) == (400, "cursor")


async def test_a_report_in_every_format(site):
    (row,) = (await asked(site.admin, "GET", "/report?by=team&team=search"))[1]
    text = (await site.admin.get("/report?by=team&team=search&format=csv")).text
    (line,) = csv.DictReader(io.StringIO(text))
    assert (line["team"], line["cost_usd"]) == ("search", row["cost_usd"])
    answer = await site.admin.get("/report?team=search&format=focus&since=3650d")
    (charge,) = csv.DictReader(io.StringIO(answer.text))
    assert charge["BilledCost"] == row["cost_usd"]
    assert answer.headers["content-type"].startswith("text/csv")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = (await site.admin.get("/report?team=search&format=parquet")).content
    (found,) = parquet.read_table(io.BytesIO(content)).to_pylist()
    assert f"{found['cost_usd'].normalize():f}" == row["cost_usd"]


async def test_what_if_forecast_and_exhaustion(site):
    query = "at_model=openai/gpt-5&at_model=openai/gpt-5-mini&by=team"
    _, rows = await asked(site.admin, "GET", f"/report/what-if?{query}")
    assert {(row["team"], row["at_model"]) for row in rows} == {
        (team, model)
        for team in ("ads", "search")
        for model in ("openai/gpt-5", "openai/gpt-5-mini")
    }
    _, rows = await asked(site.viewer, "GET", f"/report/what-if?{query}")
    assert {row["team"] for row in rows} == {"search"}
    status, body = await asked(site.admin, "GET", "/report/what-if?at_model=nobody/x")
    assert (status, "nobody/x" in body["error"]["message"]) == (400, True)
    assert (await asked(site.admin, "GET", "/forecast?by=team"))[0] == 200
    _, rows = await asked(site.admin, "GET", "/report/exhaustion")
    assert {row["scope"] for row in rows} >= {"team/acme/search", "organization/acme"}


async def test_prices_have_versions_a_history_and_differences(site):
    _, tables = await asked(site.admin, "GET", "/prices")
    assert sum(table["in_effect"] for table in tables) == 1
    _, page = await asked(site.admin, "GET", "/prices/models?provider=openai&model=gpt-5")
    assert page["items"][0]["input_usd"] is not None
    _, history = await asked(site.admin, "GET", "/prices/history?provider=openai&model=gpt-5")
    assert history[-1]["price"] == page["items"][0]
    assert (await asked(site.admin, "GET", "/prices/history?provider=x&model=y"))[0] == 404
    old, new = tables[0]["id"], tables[-1]["id"]
    _, page = await asked(site.admin, "GET", f"/prices/diff?old={old}&new={new}&limit=5")
    assert bool(page["items"]) == (old != new)
    status, body = await asked(site.admin, "GET", "/prices/diff?old=/etc/passwd&new=x")
    assert (status, body["error"]["code"]) == (400, "invalid_prices")
    assert (await asked(site.admin, "GET", "/prices/models?at=2026-13-45"))[0] == 400


async def test_a_request_is_explained_as_the_command_does(site):
    request = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}
    _, found = await asked(site.admin, "POST", "/explain", json={"key": "prod", "request": request})
    assert found["refused"] is False
    names = [line["name"] for line in found["lines"] if line["what"] == "budget"]
    assert any(name.startswith("team/acme/search") for name in names)
    _, seen = await asked(site.viewer, "POST", "/explain", json={"key": "prod", "request": request})
    veiled = next(line for line in seen["lines"] if line["scope"] == "organization/acme")
    assert (veiled["limit"], veiled["spent"], veiled["free"]) == (None, None, None)
    _, found = await asked(
        site.admin, "POST", "/explain", json={"key": "prod", "request": {"model": "no-such"}}
    )
    assert found["error"]["code"] == "not_explained"
    others = {"key": "ads-prod", "request": request}
    assert (await asked(site.viewer, "POST", "/explain", json=others))[0] == 404


# --- the audit log, and what is hostile ----------------------------------------------------


async def test_every_change_is_in_the_log_with_who_and_from_where(site):
    await asked(site.admin, "POST", "/organizations", json={"name": "initech"})
    _, page = await asked(site.admin, "GET", "/audit?action=organization.create&limit=1")
    (entry,) = page["items"]
    assert (entry["who"], entry["target"], entry["before"]) == (
        "admin", "organization/initech", None,
    )  # fmt: skip
    assert (entry["origin"], entry["after"]["source"]) == ("127.0.0.1", "api")


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"name": 1}', "application/json", 400),
        (b'{"name": "x", "name2": 1}', "application/json", 400),
        (b'{"name": "\xff"}', "application/json", 400),
        (b'{"name": "x"}', "text/plain", 415),
        (b'{"name": "' + b"x" * 2**20 + b'"}', "application/json", 413),
    ],
)
async def test_hostile_bodies_are_refused(site, content, content_type, status):
    headers = {"content-type": content_type}
    answer = await site.admin.post("/organizations", content=content, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "param"}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1&limit=2",
        "model=%00",
        "colour=red",
        "tags=x",
        "since=" + "9" * 99,
    ],
)
async def test_hostile_queries_are_refused(site, query):
    status, body = await asked(site.admin, "GET", f"/calls?{query}")
    assert (status, body["error"]["code"] != "internal") == (400, True)


async def test_names_come_back_as_they_are_and_as_json(site):
    name = "<script>alert(1)</script>'\";--\u202e"
    status, made = await asked(
        site.admin, "POST", "/organizations", json={"name": "<script>\"';--"}
    )
    assert (status, made["name"]) == (201, "<script>\"';--")
    assert (await asked(site.admin, "POST", "/organizations", json={"name": name}))[0] == 400
    answer = await site.admin.get("/organizations")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.content) == msgspec.json.decode(answer.content)


async def test_two_at_once_do_not_make_the_same_thing_twice(site):
    make = [asked(site.admin, "POST", "/organizations", json={"name": "hooli"}) for _ in range(3)]
    answers = await asyncio.gather(*make)
    assert sorted(status for status, _ in answers) == [201, 409, 409]


# --- alerts --------------------------------------------------------------------------------


async def test_alerts_of_a_team_are_seen_by_its_viewer(site):
    def store(connection):
        for scope in ("team/acme/search", "team/acme/ads", "key/prod", ""):
            new = NewAlert("budget_threshold", f"of {scope}", "warning", f"of {scope}", scope)
            raise_alert(connection, new, ["ops"], host_id="h", now_ms=1_000)

    await site.control.parts.transactions.run(store)
    _, everything = await asked(site.admin, "GET", "/alerts")
    assert {each["scope"] for each in everything} == {
        "team/acme/search", "team/acme/ads", "key/prod", "",
    }  # fmt: skip
    assert everything[0]["deliveries"] == [
        {"event": "raised", "channel": "ops", "state": "pending", "attempts": 0,
         "done_at": None, "error": ""}
    ]  # fmt: skip
    _, of_search = await asked(site.viewer, "GET", "/alerts")
    assert {each["scope"] for each in of_search} == {"team/acme/search", "key/prod"}
    assert len((await asked(site.viewer, "GET", "/alerts?limit=1"))[1]) == 1
    assert (await asked(site.admin, "GET", "/alerts?kind=test"))[1] == []
    assert (await asked(site.admin, "GET", "/alerts?since=1d"))[1] == []


async def test_a_budget_made_here_has_its_thresholds(site):
    asked_for = {
        "scope": "team/acme/ads", "limit_usd": "7", "period": "year",
        "alert_at": [80], "alert_exhaustion_h": [24],
    }  # fmt: skip
    _, made = await asked(site.admin, "POST", "/budgets", json=asked_for)

    async def thresholds():
        return (await site.control.parts.transactions.run(load_thresholds)).get(made["id"])

    assert await thresholds() == {"budget_threshold": [80_000], "budget_exhaustion": [24_000]}
    change = {"alert_at": [90], "alert_exhaustion_h": []}
    await asked(site.admin, "PATCH", f"/budgets/{made['id']}", json=change)
    assert await thresholds() == {"budget_threshold": [90_000]}
    await asked(site.admin, "DELETE", f"/budgets/{made['id']}")
    assert await thresholds() is None


async def test_refused_calls_of_every_host(site):
    at_ms = time.time_ns() // 10**6
    hour = at_ms // HOUR_MS
    who = {"search": "prod", "ads": "ads-prod"}
    counts = {
        Group(hour, "acme", team, key, "openai", model, "budget_exceeded", f"team/acme/{team}"):
        Counted(calls, at_ms)
        for calls, (team, key) in enumerate(who.items(), 1)
        for model in ("gpt-5", "<b>")
    }  # fmt: skip
    transactions = site.control.parts.transactions
    for host in ("a", "b"):
        await transactions.run(partial(add_refusals, host_id=host, counts=counts))
    _, rows = await asked(site.admin, "GET", "/refusals?by=team,model")
    assert [(row["team"], row["model"], row["calls"]) for row in rows] == [
        ("ads", "<b>", 4), ("ads", "gpt-5", 4), ("search", "<b>", 2), ("search", "gpt-5", 2),
    ]  # fmt: skip
    assert rows[0]["last_at"].startswith("20")
    _, own = await asked(site.viewer, "GET", "/refusals?by=team,code,hour&since=1h&model=gpt-5")
    assert [(row["team"], row["calls"], row["hour"][13:]) for row in own] == [
        ("search", 2, ":00:00.000Z")
    ]
    assert (await asked(site.viewer, "GET", "/refusals?team=ads"))[0] == 403
    for query in ("by=user", "since=never", "until=2020-01-01"):
        assert (await asked(site.admin, "GET", f"/refusals?{query}"))[0] == 400
    assert (await asked(site.admin, "GET", "/refusals?by=total&code=draining"))[1] == []
