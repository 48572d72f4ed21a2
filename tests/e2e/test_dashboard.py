"""A walk through the dashboard in a real browser, beside a real SDK and a scripted provider."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from proxy.cli_explain import explain_call
from proxy.control.admin import admin_app
from proxy.server import Server
from tests.e2e.accessible import check_page
from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "admin-key-of-the-walk"
RECORD = os.environ.get("TOLLKEEPER_WALK", "")  # a directory
HOSTILE = "<script>document.title='owned'</script>"
PAGES = ("", "/budgets", "/calls", "/refusals", "/keys", "/prices?q=gpt-4o", "/alerts", "/audit")
LONG_MS = 20_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, admin={"key": KEY}) as stage:
        yield stage


@pytest.fixture
def dashboard(stage: Stage) -> Iterator[str]:
    """Control's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = admin_app(stage.app.app.control, explain_call)
        server = Server(app, keep_alive_s=75, header_bytes_max=64 * 1024)
        stage.app.run(server.start([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dashboard"
        stage.app.run(server.stop())


@pytest.fixture
def page() -> Iterator[Any]:
    """A page that complains of whatever its browser complains of."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        if RECORD:
            context.tracing.start(screenshots=True, snapshots=True)
        page = context.new_page()
        page.set_default_timeout(LONG_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: dialog.accept())
        yield page
        if RECORD:
            context.tracing.stop(path=Path(RECORD) / "walk.zip")
        browser.close()
    assert [each for each in complaints if "401" not in each] == []  # a wrong key is told so


def test_a_walk(stage: Stage, dashboard: str, page: Any) -> None:
    stage.paid(CHAT)
    stage.rows()
    log_in(page, dashboard)
    see_spend(stage, page, dashboard)
    budget = make_budget(page, dashboard)
    secret = make_key(page, dashboard)
    client = openai.OpenAI(base_url=f"{stage.app.url}/v1", api_key=secret, max_retries=0)
    with client:
        watch_a_call(stage, page, dashboard, client)
        lower_and_be_refused(stage, page, dashboard, budget, client)
    for path in PAGES:
        check_page(page, dashboard + path)
    check_page(page, budget)
    log_out(page, dashboard)


def log_in(page: Any, dashboard: str) -> None:
    page.goto(dashboard)
    assert page.url.endswith("/login")
    page.fill("#key", "a wrong one")
    page.press("#key", "Enter")
    page.get_by_role("alert").wait_for()
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    page.wait_for_url(dashboard)


def see_spend(stage: Stage, page: Any, dashboard: str) -> None:
    """The figure is the report's, to the nano-dollar."""
    shown = page.locator("#total").get_attribute("data-nano")
    assert Decimal(shown) / 10**9 == stage.billed() == Decimal(CHAT.cost)
    page.get_by_role("link", name="search", exact=True).wait_for()
    page.get_by_text("At the end of the month").wait_for()


def make_budget(page: Any, dashboard: str) -> str:
    page.get_by_role("link", name="Budgets").click()
    page.get_by_text("New budget").click()
    page.get_by_label("Scope").fill("team/acme/search")
    page.get_by_label("Limit").fill("5")
    page.get_by_label("per", exact=True).select_option("total")
    page.get_by_role("button", name="Make the budget").click()
    page.get_by_role("heading", name="team/acme/search", exact=True).wait_for()
    assert "$5.00" in page.content()
    made = str(page.url)
    page.get_by_role("link", name="Budgets").first.click()
    page.get_by_text("days of history are too few").wait_for()  # its projection has come
    return made


def make_key(page: Any, dashboard: str) -> str:
    page.get_by_role("link", name="Keys").click()
    page.get_by_text("New key").click()
    page.get_by_label("Name").fill("walker")
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#secret").inner_text()
    page.goto(f"{dashboard}/keys")
    assert "walker" in page.content()
    assert secret not in page.content()
    return str(secret)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": "Say it."}]
    return client.chat.completions.create(
        model=CHAT.model, messages=messages, max_completion_tokens=50, stream=True, **more
    )


def watch_a_call(stage: Stage, page: Any, dashboard: str, client: openai.OpenAI) -> None:
    """It comes by itself, and its page says what it cost, line by line."""
    page.goto(f"{dashboard}/calls")
    page.get_by_text("live", exact=True).wait_for()
    stage.provider.reply(CHAT.reply())

    def answered() -> bool:  # a new key is known within a second
        with contextlib.suppress(openai.AuthenticationError):
            list(ask(client, extra_headers={"x-tollkeeper-tags": f"note={HOSTILE}"}))
            return True
        return False

    eventually(answered)
    row = page.locator("#calls tr", has_text="walker").filter(has_text="complete")
    row.wait_for()
    row.get_by_role("link").click()
    page.get_by_role("heading", name="What it cost, line by line").wait_for()
    assert CHAT.cost in page.content()
    assert page.get_by_text(HOSTILE).count() == 1
    check_page(page, page.url)


def lower_and_be_refused(
    stage: Stage, page: Any, dashboard: str, budget: str, client: openai.OpenAI
) -> None:
    page.goto(budget)
    page.get_by_label("Limit in USD").fill("0.000000001")
    page.get_by_role("button", name="Set").click()
    page.wait_for_url(budget)
    page.goto(f"{dashboard}/calls")
    page.get_by_text("live", exact=True).wait_for()

    def refused() -> bool:
        stage.provider.reset()
        stage.provider.reply(CHAT.reply())
        try:
            list(ask(client))
        except openai.RateLimitError as exc:
            return "budget" in str(exc)
        return False

    eventually(refused)
    row = page.locator("#calls tr.refused", has_text="walker").first
    row.wait_for()
    row.get_by_role("link").click()
    page.get_by_role("heading", name="Budget spent").wait_for()
    assert "limit 0.000000001 USD" in page.content()
    check_page(page, page.url)


def log_out(page: Any, dashboard: str) -> None:
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(f"{dashboard}/keys")
    assert "/login" in page.url
    check_page(page, f"{dashboard}/login")
    assert httpx.get(f"{dashboard}/calls/feed", headers={"accept": "text/event-stream"}).is_error
