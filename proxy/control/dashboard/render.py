"""Templates, what they show figures with, and the files they name."""

import hashlib
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from pricing.money import NANO_PER_USD, nano_from_usd, usd_from_nano
from proxy import __version__
from proxy.control.dashboard.reasons import reason

PREFIX = "/dashboard"
HERE = Path(__file__).parent
ASSET_S = 365 * 86_400  # their addresses change with their content
SMALL_NANO = NANO_PER_USD // 100
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

NAVIGATION = (
    ("", "Overview"),
    ("/budgets", "Budgets"),
    ("/calls", "Calls"),
    ("/refusals", "Refused"),
    ("/alerts", "Alerts"),
    ("/keys", "Keys"),
    ("/prices", "Prices"),
)
FOR_ADMINS = (("/audit", "Audit"),)


class Assets:
    """The files of `static/`, in memory, by name."""

    def __init__(self) -> None:
        files = (path for path in (HERE / "static").iterdir() if path.is_file())
        self._files = {path.name: path.read_bytes() for path in files}

    def url(self, name: str) -> str:
        version = hashlib.sha256(self._files[name]).hexdigest()[:12]
        return f"{PREFIX}/static/{name}?{version}"

    def answer(self, request: Request) -> Response:
        data = self._files.get(request.path_params["name"])
        if data is None:
            return Response("no such file", 404, HEADERS, "text/plain")
        kind = mimetypes.guess_type(request.path_params["name"])[0] or "text/plain"
        headers = {**HEADERS, "cache-control": f"public, max-age={ASSET_S}, immutable"}
        return Response(data, 200, headers, kind)


class Templates:
    """Everything is escaped; a name that a template does not get is an error."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            asset=assets.url,
            version=__version__,
            prefix=PREFIX,
            navigation=NAVIGATION,
            for_admins=FOR_ADMINS,
        )
        self._environment.filters.update(
            usd=usd, exact=usd_from_nano, count=count, when=when, short=short, amount=amount,
            segment=segment, nano=nano, reason=reason, percent=percent,
            signed=signed,
        )  # fmt: skip

    def text(self, template: str, values: Mapping[str, Any]) -> str:
        return self._environment.get_template(template).render(values)

    def page(self, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
        return HTMLResponse(self.text(template, values), status, HEADERS)


# --- figures -------------------------------------------------------------------------------


def usd(nano: int) -> str:
    """For people: to the cent, or three digits of what is smaller. Exact ones are beside it."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    if not nano:
        return "$0"
    if nano >= SMALL_NANO:
        cents = (nano * 100 + NANO_PER_USD // 2) // NANO_PER_USD
        return f"{sign}${cents // 100:,}.{cents % 100:02d}"
    step = 10 ** max(len(str(nano)) - 3, 0)
    return f"{sign}${usd_from_nano((nano + step // 2) // step * step)}"


def percent(part: int, whole: int) -> str:
    """Rounded down, but what is there is not nothing."""
    value = part * 100 // max(whole, 1)
    return f"{value:,} %" if value or part <= 0 else "< 1 %"


def count(value: int) -> str:
    return f"{value:,}"


def short(value: int) -> str:
    """1234567 -> 1.2 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if abs(value) >= size:
            scale = 1000 if unit == "k" else size
            return f"{value / scale:,.1f} {unit}"
    return f"{value:,}"


def amount(value: int, unit: str) -> str:
    """Of a budget, in its unit."""
    return usd(value) if unit == "usd" else f"{value:,} {unit}"


def signed(value: int, unit: str) -> str:
    """What is added to a budget."""
    return amount(value, unit) if value < 0 else f"+{amount(value, unit)}"


def when(at_ms: int | None) -> str:
    """UTC, to the second; "" for never."""
    if at_ms is None:
        return ""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def nano(usd_text: str) -> int:
    """Exact text of an amount as reports have it."""
    return nano_from_usd(Decimal(usd_text))


def segment(name: str) -> str:
    """A name as one part of a path: names have slashes."""
    return quote(name, safe="")
