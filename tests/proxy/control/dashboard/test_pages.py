"""Every page: who may see it, what it says, and that nothing hostile gets through."""

import re
from decimal import Decimal
from html import unescape

import pytest

from db.alerts import NewAlert, raise_alert
from db.reports import calls
from pricing.money import usd_from_nano
from proxy.control.dashboard.routes import pages
from proxy.control.identity import Role
from tests.proxy.control.dashboard.conftest import ADMIN_KEY, COST, HOSTILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ["", "/outlook", "/budgets", "/calls", "/refusals", "/keys", "/prices?q=gpt-5", "/alerts",
         "/audit", "?period=30d&by=model", "?by=tag&tag=note", "?by=tag&tag=note&whole=1",
         "?timezone=Asia/Kolkata", "?period=today&by=key"]  # fmt: skip


async def test_no_page_without_login(scene):
    browser = scene.browser()
    for method, path, _, _ in pages():
        place = path.replace("{number:int}", "1").replace("{request_id}", scene.call_id)
        answer = await browser.http.request(method, f"/dashboard{place}")
        assert answer.status_code in (303, 401), place
        assert "acme" not in answer.text
    part = await browser.get("/outlook", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/dashboard/login")


async def test_every_page_is_escaped_and_has_its_headers(scene):
    browser = await scene.admin()
    budgets = (await browser.get("/budgets")).text
    number = re.search(r"/budgets/(\d+)", budgets)[1]
    paths = [*PATHS, f"/budgets/{number}", f"/budgets/{number}/projection",
             f"/calls/{scene.call_id}", "/prices/model?provider=openai&model=gpt-5"]  # fmt: skip
    for path in paths:
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert HOSTILE[:9] not in answer.text, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
    assert "&lt;script" in (await browser.get("?by=model")).text
    assert "&lt;script" in (await browser.get(f"/calls/{scene.call_id}")).text
    assert "&lt;script" in (await browser.get("/refusals")).text


async def test_words_do_not_run_into_each_other(scene):
    """Template tags eat line ends."""
    browser = await scene.admin()
    call = (await browser.get(f"/calls/{scene.call_id}")).text
    assert "reported. Priced with" in re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", call))
    for path in [*PATHS, f"/calls/{scene.call_id}"]:
        html = (await browser.get(path)).text.partition("<main")[2]
        inline = re.sub(r"</?(a|b|strong|small|span|code)\b[^>]*>", "", html)
        text = re.sub(r"<[^>]+>", " ", inline)
        assert re.findall(r"\w*[a-z)%][.;,:](?=[A-Z])\w*|(?:more|less)than", text) == [], path


async def test_parts_of_a_page_are_put_where_they_belong(scene):
    """htmx hands attributes down: a budget's projection must not be swapped like the whole list."""
    html = (await (await scene.admin()).get("/budgets")).text
    section = re.search(r'<section[^>]*id="budgets"[^>]*>', html)[0]
    assert 'hx-select="#budgets"' in section
    assert 'hx-disinherit="*"' in section


async def test_refused_calls_of_every_host_are_counted_by_kind_and_single_ones_are_of_this(scene):
    html = (await (await scene.admin()).get("/refusals")).text
    assert "Single calls are of this host alone" in html
    assert re.search(r"<h2>Money <small[^>]*>6</small></h2>", html)
    assert re.findall(r'data-label="Budget">(.*?)</td>', html) == [
        "team/acme/ads", "team/acme/search",
    ]  # fmt: skip
    month = (await (await scene.viewer()).get("/refusals?since=30d")).text
    assert re.search(r"<h2>Money <small[^>]*>3</small></h2>", month)
    assert "team/acme/ads" not in month
    overview = (await (await scene.viewer()).get("")).text
    assert re.search(r'Budget spent</a></th><td class="num">3</td>', overview)
    other = (await (await scene.admin()).get("?whole&tag:note=x")).text
    assert "counted by organization, team, key, provider and model alone" in other
    one = (await (await scene.admin()).get("/refusals?code=budget_exceeded")).text
    assert 'budget_exceeded" aria-current="true">Budget spent' in one


async def test_the_total_is_that_of_report_and_api_to_the_nano_dollar(scene):
    browser = await scene.admin()
    html = (await browser.get("")).text
    shown = int(re.search(r'data-nano="(\d+)"', html)[1])
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    rows = (await browser.http.get("/admin/api/report?by=total", headers=headers)).json()
    api = sum(Decimal(row["cost_usd"]) for row in rows)

    async def ask(connection):
        return sum([Decimal(row["cost_usd"]) async for row in calls(connection)])

    assert usd_from_nano(shown) == str(api) == str(await scene.site.backend.read(ask))
    assert shown == 2 * COST


@pytest.mark.parametrize(
    "query",
    [
        "?by=tag&tag=note&provider=openai", "?by=key&tag:note=x",
        "?by=tag&tag=note&timezone=Asia/Kolkata",
    ],
)  # fmt: skip
async def test_what_rollups_have_not_is_shown_once_the_page_is_there(scene, query):
    browser = await scene.admin()
    html = (await browser.get(query)).text
    assert 'id="total"' not in html
    place = unescape(re.search(r'hx-get="/dashboard([^"]+)" hx-trigger="load ', html)[1])
    part = (await browser.get(place, headers={"hx-request": "true"})).text
    link = unescape(re.search(r'href="/dashboard([^"]+whole=1[^"]*)"', html)[1])
    wanted = 0 if "note=x" in query else 2 * COST
    for text in (part, (await browser.get(link)).text):
        assert f'data-nano="{wanted}"' in text
        assert '<main id="main"' in text


async def test_a_call_is_explained_to_its_last_nano_dollar(scene):
    html = (await (await scene.admin()).get(f"/calls/{scene.call_id}")).text
    assert "0.000000144" in html  # 12 input tokens
    assert "0.000001156" in html  # 34 output tokens
    assert f"<strong>{usd_from_nano(COST)}</strong>" in html
    assert "team/acme/search" in html


async def test_a_refused_call_says_why(scene):
    browser = await scene.admin()
    listed = (await browser.get("/refusals?code=budget_exceeded")).text
    path = re.search(r'href="/dashboard(/calls/[^"]+)"', listed)[1]
    html = (await browser.get(path)).text
    assert "cannot pay for this call" in html
    assert "Budget spent" in html


async def test_a_viewer_sees_the_team_and_nothing_else(scene):
    browser = await scene.viewer()
    for path in (path for path in PATHS if path != "/audit"):
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert "ads-prod" not in answer.text, path
        assert "acme/ads" not in answer.text, path
    assert str(COST) in (await browser.get("")).text
    assert (await browser.get(f"/calls/{scene.call_id}")).status_code == 200
    assert (await browser.get(f"/calls/{scene.others_call_id}")).status_code == 404
    assert (await browser.get("?team=acme/ads")).status_code == 403
    assert (await browser.get("/calls?team=ads")).status_code == 403
    assert (await browser.get("/audit")).status_code == 403
    admin = await scene.admin()
    numbers = re.findall(r'id="budget-(\d+)"', (await admin.get("/budgets")).text)
    statuses = [(await browser.get(f"/budgets/{number}")).status_code for number in numbers]
    assert sorted(statuses) == [200, 404]


async def test_alerts_of_others_and_of_the_host_are_not_a_viewers(scene):
    def raise_all(connection):
        for scope in ("team/acme/search", "team/acme/ads", ""):
            alert = NewAlert(
                "budget_threshold", f"i{scope}", "warning", f"about {scope}{HOSTILE}", scope
            )
            raise_alert(connection, alert, ["mail"], host_id="h", now_ms=1)

    await scene.control.parts.transactions.run(raise_all)
    everything = (await (await scene.admin()).get("/alerts")).text
    assert everything.count("&lt;script") == 3
    assert "mail · pending" in everything
    own = (await (await scene.viewer()).get("/alerts")).text
    assert "about team/acme/search" in own
    assert own.count("about ") == 1


async def test_a_viewer_changes_nothing(scene):
    browser = await scene.viewer()
    assert "New key" not in (await browser.get("/keys")).text
    for path, _, role in ((p, h, r) for m, p, h, r in pages() if m == "POST"):
        if role is Role.ADMIN:
            place = path.replace("{number:int}", "1")
            answer = await browser.post(place, {"name": "x", "id": "1"}, at="/keys")
            assert answer.status_code == 403, path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("?period=decade", 400),
        ("?timezone=Mars", 400),
        ("?team=nobody", 400),
        ("/calls/not-an-id", 404),
        ("/calls/00000000-0000-7000-8000-000000000000", 404),
        ("/budgets/999", 404),
        ("/prices/model?provider=x&model=y", 404),
        ("/static/nothing.css", 404),
        ("/static/..%2frender.py", 404),
    ],
)
async def test_what_is_not_there_is_said_in_words(scene, path, status):
    answer = await (await scene.admin()).get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


async def test_files_are_kept_by_browsers_and_are_only_ours(scene):
    browser = scene.browser()
    html = (await browser.get("/login")).text
    urls = set(re.findall(r'(?:src|href)="([^"#]+)"', html))
    assert len(urls) == 4
    for url in urls:
        answer = await browser.http.get(url)
        assert url.startswith("/dashboard/static/")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


async def test_an_outage_is_said_and_no_page_fails(scene, monkeypatch):
    browser = await scene.admin()

    def unreachable(*_, **__):
        raise OSError("gone")

    monkeypatch.setattr("proxy.control.readers.open_engine", unreachable)
    await scene.control.parts.readers.close()
    answer = await browser.get("")
    assert answer.status_code == 503
    assert "out of reach" in answer.text
