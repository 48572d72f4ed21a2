"""Changes: only with the form's token, with the audit log, a secret shown once."""

import re

import pytest
from sqlalchemy import insert

from db.catalog import hash_key, load_keys
from db.models import Window
from tests.proxy.control.dashboard.conftest import ADMIN_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW = {"name": "fresh", "place": "acme/search", "user": "", "expires": "2031-01-31",
       "models": "gpt-5*, claude-*", "providers": ""}  # fmt: skip


def secret_in(html: str) -> str:
    return re.search(r'id="secret">([^<]+)<', html)[1]


async def stored(scene, name):
    keys = await scene.control.parts.transactions.run(load_keys)
    return next(key for key in keys if key.name == name)


async def test_a_key_is_made_shown_once_rotated_and_revoked(scene):
    browser = await scene.admin()
    answer = await browser.post("/keys", NEW)
    secret = secret_in(answer.text)
    key = await stored(scene, "fresh")
    assert key.sha256 == hash_key(secret)
    assert key.models == ("gpt-5*", "claude-*")
    for path in ("/keys", "/audit", "/keys?revoked=1"):
        page = (await browser.get(path)).text
        assert "fresh" in page
        assert secret not in page
        assert key.sha256 not in page
    again = await browser.post("/keys", NEW)
    assert again.status_code == 400
    assert "fresh" in again.text
    rotated = secret_in((await browser.post("/keys/rotate", {"id": str(key.id)}, at="/keys")).text)
    assert (await stored(scene, "fresh")).sha256 == hash_key(rotated) != hash_key(secret)
    gone = await browser.post("/keys/revoke", {"id": str(key.id)}, at="/keys")
    assert gone.status_code == 303
    assert (await stored(scene, "fresh")).revoked


@pytest.mark.parametrize(
    "wrong",
    [{"expires": "soon"}, {"place": "nowhere"}, {"name": ""}, {"name": "x" * 200}],
    ids=["date", "place", "no name", "long name"],
)
async def test_a_key_that_cannot_be_made_is_explained(scene, wrong):
    answer = await (await scene.admin()).post("/keys", NEW | {"name": "never"} | wrong)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'id="secret"' not in answer.text


async def test_a_budget_is_made_lowered_and_deleted(scene):
    browser = await scene.admin()
    fields = {"scope": "key/made", "limit": "5", "unit": "usd", "period": "day"}
    made = await browser.post("/budgets", fields)
    place = made.headers["location"].removeprefix("/dashboard")
    assert "$5.00" in (await browser.get(place)).text
    changed = await browser.post(place, {"unit": "usd", "limit": "0.25"})
    assert changed.status_code == 303
    assert "$0.25" in (await browser.get(place)).text
    wrong = await browser.post(place, {"unit": "usd", "limit": "a lot"})
    assert (wrong.status_code, "Limit usd cannot have" in wrong.text) == (400, True)
    assert "250000000" in (await browser.get("/audit")).text
    assert (await browser.post(f"{place}/delete", {}, at=place)).status_code == 303
    assert (await browser.get(place)).status_code == 404


async def test_what_the_configuration_declares_is_changed_there(scene):
    browser = await scene.admin()
    listed = (await browser.get("/budgets")).text
    number = re.search(r'/budgets/(\d+)">team/acme/search', listed)[1]
    page = (await browser.get(f"/budgets/{number}")).text
    assert "changed in the configuration" in page
    answer = await browser.post(f"/budgets/{number}", {"unit": "usd", "limit": "9"}, at="/keys")
    assert answer.status_code == 400
    assert "configuration" in answer.text
    key = await stored(scene, "prod")
    refused = await browser.post("/keys/rotate", {"id": str(key.id)}, at="/keys")
    assert refused.status_code == 400


@pytest.mark.parametrize("kind", ["none", "of another session", "from another site", "too large"])
async def test_a_form_that_is_not_of_this_session_changes_nothing(scene, kind):
    browser, other = await scene.admin(), await scene.admin()
    token = re.search(r'name="csrf" value="([^"]+)"', (await browser.get("/keys")).text)[1]
    theirs = re.search(r'name="csrf" value="([^"]+)"', (await other.get("/keys")).text)[1]
    fields = NEW | {
        "name": "forged",
        "csrf": {"none": "", "of another session": theirs}.get(kind, token),
    }
    if kind == "too large":
        fields["models"] = "x" * 20_000
    headers = {"sec-fetch-site": "cross-site"} if kind == "from another site" else {}
    answer = await browser.http.post("/dashboard/keys", data=fields, headers=headers)
    assert answer.status_code == (413 if kind == "too large" else 403)
    keys = await scene.control.parts.transactions.run(load_keys)
    assert "forged" not in {key.name for key in keys}


async def test_the_admin_key_does_not_open_the_dashboard_by_itself(scene):
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    assert (await scene.browser().get("/keys", headers=headers)).status_code == 303


def number_of(html, scope):
    return re.search(rf'id="budget-(\d+)"[^>]*>{scope}<', html)[1]


async def test_a_limit_is_raised_for_a_while_and_the_page_says_by_whom_and_why(scene):
    browser = await scene.admin()
    number = number_of((await browser.get("/budgets")).text, "team/acme/search")
    place = f"/budgets/{number}"  # of the configuration, which raises leave alone
    fields = {"by": "0.5", "until": "2031-01-31", "since": "", "reason": "launch <week>"}
    assert (await browser.post(f"{place}/raises", fields, at=place)).status_code == 303
    later = fields | {"since": "2031-01-01", "by": "7", "reason": ""}
    assert (await browser.post(f"{place}/raises", later, at=place)).status_code == 303
    page = (await browser.get(place)).text
    assert "raised until 2031-02-01 00:00" in page
    assert "of which $0.50 for a while" in page
    assert "launch &lt;week&gt;" in page
    assert "<strong>+$7.00</strong> from <time>2031-01-01 00:00</time>" in page
    listed = (await browser.get("/budgets")).text
    assert "+$0.50" in listed
    assert "$1.50" in listed
    assert "+$7.00" not in listed
    assert "budget.raise" in (await browser.get("/audit")).text
    back = fields | {"by": "-0.5"}
    assert (await browser.post(f"{place}/raises", back, at=place)).status_code == 303
    assert "of which" not in (await browser.get(place)).text


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"until": "2001-01-01"}, "in the future"),
        ({"until": "someday"}, "expected a date"),
        ({"by": "much"}, "By cannot have this value"),
        ({"by": "-5"}, "may be taken back"),
        ({"until": ""}, "until"),
    ],
    ids=["past", "no date", "no amount", "not so much", "no end"],
)
async def test_a_raise_that_cannot_be_is_explained(scene, wrong, why):
    browser = await scene.admin()
    place = f"/budgets/{number_of((await browser.get('/budgets')).text, 'team/acme/ads')}"
    fields = {"by": "1", "until": "2031-01-31", "reason": "kept"} | wrong
    answer = await browser.post(f"{place}/raises", fields, at=place)
    assert answer.status_code == 400
    assert why in answer.text
    assert 'value="kept"' in answer.text


async def test_a_raise_needs_the_token_of_its_form(scene):
    browser = await scene.admin()
    path = f"/dashboard/budgets/{number_of((await browser.get('/budgets')).text, 'team/acme/ads')}"
    fields = {"by": "1", "until": "2031-01-31"}
    assert (await browser.http.post(f"{path}/raises", data=fields)).status_code == 403


async def test_a_trial_is_told_apart_and_says_what_it_would_have_refused(scene):
    browser = await scene.admin()
    fields = {"scope": "key/made", "limit": "3", "unit": "usd", "period": "total"}
    made = await browser.post("/budgets", fields | {"enforce": "false"})
    place = made.headers["location"].removeprefix("/dashboard")

    def spare(connection):
        values = {"budget_id": int(place.rpartition("/")[2]), "starts_at": 0, "spared": 37}
        connection.execute(insert(Window).values(values))

    await scene.control.parts.transactions.run(spare)
    page = re.sub(r"</?strong>", "", (await browser.get(place)).text)
    assert "it would have refused 37 calls" in page
    assert "calls go on, and are counted" in page
    listed = (await browser.get("/budgets")).text
    assert listed.count(">trial</span>") == 1
    assert "would have refused 37 calls" in listed
    assert (await browser.post(f"{place}/delete", {}, at=place)).status_code == 303
