"""One request of somebody who is logged in: who it is, what they may do, how they are answered."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote

from msgspec import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db.errors import CatalogError, DatabaseError, ReportError
from proxy.control.api.backend import Backend
from proxy.control.api.failures import ApiError
from proxy.control.api.table import Caller
from proxy.control.dashboard.render import HEADERS, PREFIX, Assets, Templates
from proxy.control.dashboard.sessions import SESSION_S, Sessions, Ticket
from proxy.control.identity import Denied, Identity, Role

log = logging.getLogger(__name__)

COOKIE = "tollkeeper-session"
FORM_BYTES_MAX = 16 * 1024
FIELDS_MAX = 50
LOGIN = f"{PREFIX}/login"
_FIELD = re.compile(r"`\$\.(\w{1,40})")


class Missing(Exception):
    """There is no such thing, or it is not to be seen: the answer is the same."""


class Site:
    """What all pages share."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.assets = Assets()
        self.templates = Templates(self.assets)
        control = backend.control
        self.sessions = Sessions(lambda: control.config.admin, lambda: backend.now_ms / 1000)

    def ticket(self, request: Request) -> Ticket | None:
        cookie = request.cookies.get(COOKIE)
        return self.sessions.open(cookie) if cookie else None

    def set_cookie(self, request: Request, response: Response, ticket: Ticket) -> None:
        response.set_cookie(
            COOKIE,
            self.sessions.seal(ticket),
            max_age=SESSION_S,
            path=PREFIX,
            secure=is_https(request),
            httponly=True,
            samesite="strict",
        )


@dataclass(frozen=True, slots=True)
class Visit:
    site: Site
    request: Request
    identity: Identity
    ticket: Ticket
    form: Mapping[str, str] = field(default_factory=dict)  # of a POST, its token checked

    @property
    def backend(self) -> Backend:
        return self.site.backend

    @property
    def caller(self) -> Caller:
        """As the admin API knows it."""
        return Caller(self.identity, address_of(self.request))

    @property
    def is_admin(self) -> bool:
        return self.identity.role >= Role.ADMIN

    def values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        own = {
            "identity": self.identity,
            "is_admin": self.is_admin,
            "csrf": self.site.sessions.token(self.ticket),
            "path": self.request.url.path,
            "outage": self.backend.control.outage,
        }
        return {**own, **values}

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        return self.site.templates.page(template, self.values(values), status)

    def text(self, template: str, **values: Any) -> str:
        return self.site.templates.text(template, self.values(values))

    def to(self, path: str) -> Response:
        """After a change: look at it. An address of ours."""
        return RedirectResponse(PREFIX + path, 303, HEADERS)


Handler = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(site: Site, handler: Handler, role: Role) -> Endpoint:
    """Only for who is logged in and may; a POST only with its session's token."""

    async def answer(request: Request) -> Response:
        ticket = site.ticket(request)
        identity = site.sessions.identity(ticket) if ticket is not None else None
        if ticket is None or identity is None:
            return _to_login(request)
        visit = Visit(site, request, identity, ticket)
        try:
            identity.authorize(role)
            if request.method == "POST":
                visit = Visit(site, request, identity, ticket, await checked_form(site, request))
            return await handler(visit)
        except Exception as exc:
            return _failed(visit, exc)

    return answer


def _to_login(request: Request) -> Response:
    if request.headers.get("hx-request"):  # a part of a page: the whole page goes to the login
        return Response("", 401, {**HEADERS, "hx-redirect": LOGIN})
    if request.method != "GET" or "text/event-stream" in request.headers.get("accept", ""):
        return Response("log in first", 401, HEADERS, "text/plain")
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    suffix = "" if target == PREFIX else f"?to={quote(target, safe='')}"
    return RedirectResponse(LOGIN + suffix, 303, HEADERS)


def _failed(visit: Visit, exc: Exception) -> Response:
    status, title, text = _explained(exc)
    if status == 500:
        log.error("the dashboard failed", exc_info=exc)
    return visit.page("error.html", status, title=title, text=text)


def _explained(exc: Exception) -> tuple[int, str, str]:
    if isinstance(exc, Denied):
        return exc.status, "Not allowed", exc.message
    if isinstance(exc, Missing):
        return 404, "Not found", str(exc) or "There is nothing at this address."
    if isinstance(exc, ReportError | CatalogError | ApiError | ValidationError):
        return 400, "That does not work", sentence(exc)
    if isinstance(exc, asyncio.TimeoutError | TimeoutError):
        return 503, "Took too long", "Ask for less time, or try again in a moment."
    if isinstance(exc, DatabaseError | SQLAlchemyError | OSError):
        return 503, "The ledger is out of reach", "Calls go on meanwhile; try again in a moment."
    return 500, "Internal error", "Please report it; the log says more."


async def checked_form(site: Site, request: Request) -> dict[str, str]:
    """The fields of a form that was made for this cookie. Raises Denied."""
    ticket = site.ticket(request)
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Denied(403, "foreign_form", "this form was sent from another site")
    fields = await _fields(request)
    if ticket is None or not site.sessions.is_token(ticket, fields.get("csrf", "")):
        raise Denied(403, "stale_form", "this form is too old: load the page again")
    return fields


async def _fields(request: Request) -> dict[str, str]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > FORM_BYTES_MAX:
            raise Denied(413, "request_too_large", "the form is too large")
    try:
        pairs = parse_qsl(
            data.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, strict_parsing=True
        )
    except (ValueError, UnicodeDecodeError):
        raise Denied(400, "bad_form", "the form cannot be read") from None
    return {name: value.replace("\0", "").strip() for name, value in pairs}


def sentence(exc: Exception) -> str:
    """For a person: of a field that cannot be, its name and what was expected."""
    text = str(exc)
    if isinstance(exc, ValidationError) and (match := _FIELD.search(text)):
        expected = "" if "regex" in text else f": {text.partition(' - at ')[0]}"
        text = f"{match[1].replace('_', ' ')} cannot have this value{expected.replace('`', '')}"
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def address_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def is_https(request: Request) -> bool:
    """Also where TLS ends in front of us. Whoever says so wrongly only gets a stricter cookie."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return request.url.scheme == "https" or forwarded == "https"
