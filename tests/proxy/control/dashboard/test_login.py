"""In and out: rate limits, fixed cookies, foreign forms."""

import pytest

from proxy.control.dashboard.login import _inside
from proxy.control.dashboard.site import COOKIE
from proxy.control.identity import FAILURES_MAX, Authenticator
from tests.proxy.control.dashboard.conftest import ADMIN_KEY, VIEWER_KEY, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_cookie_is_for_this_site_and_this_browser_alone(scene):
    browser = scene.browser()
    answer = await browser.log_in()
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/dashboard"))
    assert "secure" not in cookie
    form = await browser.http.get("/dashboard/login", headers={"x-forwarded-proto": "https"})
    assert form.status_code == 303  # logged in already


async def test_behind_tls_the_cookie_is_secure(scene):
    answer = await scene.browser().get("/login", headers={"x-forwarded-proto": "https"})
    assert "secure" in answer.headers["set-cookie"].lower()


async def test_a_cookie_from_before_is_never_the_session(scene):
    browser = scene.browser()
    await browser.get("/login")
    before = browser.http.cookies[COOKIE]
    await browser.log_in()
    assert browser.http.cookies[COOKIE] != before
    attacker = scene.browser()
    attacker.http.cookies.set(COOKIE, before)
    assert (await attacker.get("/keys")).status_code == 303


async def test_a_session_given_by_somebody_else_is_not_gone_on_with(scene):
    """Who logs in with another's session in the browser has a new one, and that one is over."""
    browser = await scene.viewer()
    planted = browser.http.cookies[COOKIE]
    form = scene.browser()
    html = (await form.get("/login")).text
    form.http.cookies.clear()
    form.http.cookies.set(COOKIE, planted)
    refused = await form.http.post(
        "/dashboard/login", data={"csrf": token_of(html), "key": ADMIN_KEY}
    )
    assert refused.status_code == 403
    assert (await browser.get("")).status_code == 200


async def test_logging_out_ends_the_session_itself(scene):
    browser = await scene.admin()
    cookie = browser.http.cookies[COOKIE]
    assert (await browser.post("/logout", {}, at="/keys")).status_code == 303
    browser.http.cookies.set(COOKIE, cookie)
    assert (await browser.get("/keys")).status_code == 303


async def test_a_wrong_key_is_told_and_too_many_have_to_wait(scene):
    backend = scene.site.backend
    former, backend.authenticator = backend.authenticator, Authenticator(lambda: 0.0)
    browser = scene.browser()
    answers = [(await browser.log_in("wrong")).status_code for _ in range(FAILURES_MAX + 1)]
    assert answers == [401] * FAILURES_MAX + [429]
    answer = await browser.log_in()
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    backend.authenticator = former


@pytest.mark.parametrize(
    "change",
    [{"csrf": ""}, {"csrf": "x" * 43}, None],
    ids=["no token", "a wrong one", "from another site"],
)
async def test_a_foreign_form_does_not_log_in(scene, change):
    browser = scene.browser()
    token = token_of((await browser.get("/login")).text)
    headers = {} if change else {"sec-fetch-site": "cross-site"}
    fields = {"csrf": token, "key": VIEWER_KEY} | (change or {})
    answer = await browser.http.post("/dashboard/login", data=fields, headers=headers)
    assert answer.status_code == 403
    assert (await browser.get("/keys")).status_code == 303


@pytest.mark.parametrize(
    ("to", "goes"),
    [
        ("/dashboard/keys?revoked=1", "/dashboard/keys?revoked=1"),
        ("https://evil.example/", "/dashboard"),
        ("//evil.example", "/dashboard"),
        ("/dashboard//evil.example/..", "/dashboard"),
        ("/dashboard\\evil", "/dashboard"),
        ("/dashboard/login", "/dashboard"),
        ("/admin/api/keys", "/dashboard"),
        ("/dashboard/a\r\nset-cookie: x", "/dashboard"),
    ],
)
async def test_after_login_nobody_is_led_away(to, goes):
    assert _inside(to) == goes
