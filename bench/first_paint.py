"""First contentful paint of the dashboard's pages, in a real Chromium, with many calls behind them.

    first_paint.py --directory DIR [--rows 1000000] [--days 30] [--rounds 5] [--shots DIR]

The ledger is that of `report_queries.py --directory DIR --engine sqlite --make`. Control serves the
pages from a thread of this process; each is loaded with an empty cache. A figure is the median of
some rounds, in milliseconds since the navigation began.
"""

import argparse
import asyncio
import shutil
import socket
import statistics
import sys
import threading
from pathlib import Path
from typing import Any

from million import ADMIN_KEY, CLOCK, config
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from proxy.cli_explain import explain_call
from proxy.control.admin import admin_app
from proxy.control.control import Control
from proxy.serve import LEDGER_NICE
from proxy.server import Server

PAGES = (
    "", "?period=today", "?period=30d", "?period=30d&by=key", "?period=90d",
    "?period=30d&by=key&timezone=America/New_York", "?period=30d&by=model&timezone=Asia/Tokyo",
    "?period=30d&timezone=Asia/Kolkata", "?period=30d&by=tag&tag=feature",
    "?period=30d&by=tag&tag=feature&timezone=Asia/Kolkata", "?period=30d&by=model&tag:feature=x",
    "/budgets", "/budgets/2", "/budgets/11", "/calls", "/refusals", "/keys", "/prices", "/alerts",
    "/audit",
)  # fmt: skip
PAINT = """() => {
    const found = performance.getEntriesByName("first-contentful-paint");
    return found.length ? found[0].startTime : null;
}"""
SIZES = {"wide": (1280, 900), "middle": (1024, 800), "phone": (390, 844)}


class Serving:
    """Control's port, from a thread."""

    def __init__(self, url: str, directory: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/dashboard"
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(url, directory)))

    def __enter__(self) -> "Serving":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _serve(self, url: str, directory: Path) -> None:
        control = Control(config(url, directory), CLOCK, ledger_nice=LEDGER_NICE)
        await control.start()
        app = admin_app(control, explain_call)
        server = Server(app, keep_alive_s=75, header_bytes_max=64 * 1024)
        await server.start([self._listener])
        self._ready.set()
        await asyncio.to_thread(self._over.wait)
        await server.stop()
        await control.stop()


def cookies(browser: Browser, url: str) -> Any:
    page = browser.new_page()
    page.goto(url)
    page.fill("#key", ADMIN_KEY)
    page.press("#key", "Enter")
    page.wait_for_url(url)
    found = page.context.cookies()
    page.context.close()
    return found


def paint_ms(browser: Browser, address: str, session: Any) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies(session)
    page = context.new_page()
    page.goto(address)
    found = page.wait_for_function(PAINT).json_value()
    context.close()
    return float(found)


def shoot(browser: Browser, url: str, session: Any, directory: Path) -> None:
    for scheme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            viewport = {"width": width, "height": height}
            context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
            context.add_cookies(session)
            for page_path in ("?period=30d&by=tag&tag=feature", "/budgets"):
                page = context.new_page()
                page.goto(url + page_path)
                page.wait_for_load_state("networkidle")
                name = page_path.strip("/?").partition("&")[0]
                page.screenshot(path=directory / f"{name}-{scheme}-{size}.png", full_page=True)
            context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shots", type=Path, help="pictures of some pages, into this directory")
    wanted = parser.parse_args()
    url = f"sqlite+aiosqlite:///{wanted.directory}/ledger-{wanted.rows}-{wanted.days}.db"
    with Serving(url, wanted.directory / "journal-paint") as serving, sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        session = cookies(browser, serving.url)
        if wanted.shots is not None:
            shoot(browser, serving.url, session, wanted.shots)
        for path in PAGES if wanted.rounds else ():
            found = [
                paint_ms(browser, serving.url + path, session) for _ in range(wanted.rounds + 1)
            ][1:]
            print(
                f"| {path or '/'} | {statistics.median(found):.0f} | {max(found):.0f} |", flush=True
            )
        browser.close()


if __name__ == "__main__":
    main()
