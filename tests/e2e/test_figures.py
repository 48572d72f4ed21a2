"""Dashboard, command, admin API and `verify` have the same figures of the same calls."""

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from html import unescape
from typing import Any

import httpx
import pytest

from proxy.cli_explain import explain_call
from proxy.control.admin import admin_app
from proxy.control.dashboard.overview import GROUPS
from tests.e2e.shapes import SHAPES
from tests.e2e.stage import Stage
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.control.dashboard.conftest import Browser

KEY = "admin-key-of-the-figures"
ZONES = ("UTC", "Asia/Kolkata")
WHO = {"x-tollkeeper-user": "ann", "x-tollkeeper-tags": "feature=chat"}
CELLS = re.compile(
    r'<th scope="row">(?:<a [^>]*>|<span class="muted">)([^<]*)</(?:a|span)></th>\s*'
    r'<td class="num" data-label="Spent" title="\$([^"]+)"'
)

Spent = dict[str, str]  # by name, in USD


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("figures"), admin={"key": KEY}) as stage:
        for n, shape in enumerate(SHAPES):
            stage.provider.reply(shape.reply())
            assert stage.call(shape, headers=WHO if n % 2 else {}).status_code == 200
        assert len(stage.rows()) == len(SHAPES)
        yield stage


@pytest.fixture(scope="module")
def command(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Tollkeeper:
    config = stage.app.app.control.config
    text = json.dumps(
        {
            "database": {"url": config.database.url},
            "journal": {"dir": config.journal.dir},
            "providers": {"openai": {"api_key": "k"}},
        }
    )
    return Tollkeeper(tmp_path_factory.mktemp("command"), text)


def added(amounts: Iterable[str]) -> Decimal:
    return sum(map(Decimal, amounts), Decimal())


def dimension_of(group: str) -> str:
    return "tag:feature" if group == "tag" else group


def by_command(command: Tollkeeper, group: str) -> Spent:
    by = dimension_of(group)
    rows = json.loads(command.ok("report", "--by", by, "--since", "6d", "--format", "json"))
    return {row[by] or "(none)": row["cost_usd"] for row in rows}


async def by_api(browser: httpx.AsyncClient, group: str) -> Spent:
    by = dimension_of(group)
    rows = (await browser.get("/admin/api/report", params={"by": by, "since": "6d"})).json()
    return {row[by] or "(none)": row["cost_usd"] for row in rows}


async def by_dashboard(browser: Browser, group: str, zone: str) -> Spent:
    tag = "feature" if group == "tag" else ""
    path = f"?by={group}&tag={tag}&timezone={zone}&whole=1"
    html = (await browser.get(path)).text
    found = {unescape(name): usd for name, usd in CELLS.findall(html)}
    total = re.search(r'id="total" data-nano="(\d+)"', html)
    assert total
    assert Decimal(total[1]) == added(found.values()) * 10**9
    return found


def test_four_ways_to_ask_have_one_answer(stage: Stage, command: Tollkeeper) -> None:
    async def ask() -> dict[tuple[str, str], tuple[Any, Any]]:
        browser = Browser(admin_app(stage.app.app.control, explain_call))
        assert (await browser.log_in(KEY)).status_code == 303
        browser.http.headers["authorization"] = f"Bearer {KEY}"
        return {
            (group, zone): (
                await by_api(browser.http, group),
                await by_dashboard(browser, group, zone),
            )
            for group in GROUPS
            for zone in ZONES
        }

    told = stage.app.run(ask())
    billed = stage.billed()
    for (group, zone), (api, dashboard) in told.items():
        reported = by_command(command, group)
        assert reported == api == dashboard, (group, zone)
        assert added(reported.values()) == billed > 0
    assert len(by_command(command, "model")) > 2
    assert by_command(command, "tag").keys() == {"chat", "(none)"}
    assert json.loads(command.ok("verify", "--format", "json")) == []  # exit code 0, too
