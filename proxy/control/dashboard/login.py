"""In and out. A session's id is made when somebody logs in: a cookie from before is never it."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from proxy.control.dashboard.render import HEADERS, PREFIX
from proxy.control.dashboard.site import COOKIE, LOGIN, Site, Visit, address_of, checked_form
from proxy.control.identity import Denied


class Login:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def form(self, request: Request) -> Response:
        ticket = self._site.ticket(request)
        if ticket is not None and self._site.sessions.identity(ticket) is not None:
            return RedirectResponse(PREFIX, 303, HEADERS)
        return self._form(request, request.query_params.get("to", ""))

    def _form(
        self, request: Request, to: str, problem: str = "", status: int = 200, wait_s: int = 0
    ) -> Response:
        site = self._site
        off = not site.backend.control.config.admin.key
        ticket = site.sessions.form()
        values = {
            "csrf": "" if off else site.sessions.token(ticket),
            "to": to,
            "problem": problem,
            "off": off,
        }
        response = site.templates.page("login.html", values, status)
        if not off:
            site.set_cookie(request, response, ticket)
        if wait_s:
            response.headers["retry-after"] = str(wait_s)
        return response

    async def enter(self, request: Request) -> Response:
        site, to = self._site, ""
        try:
            fields = await checked_form(site, request)
            to = fields.get("to", "")
            admin = site.backend.control.config.admin
            identity = site.backend.authenticator.authenticate(
                admin, fields.get("key", ""), address_of(request)
            )
        except Denied as denied:
            status, wait_s = denied.status, denied.retry_after_s
            return self._form(request, to, _problem(denied), status, wait_s)
        former = site.ticket(request)
        if former is not None:
            site.sessions.end(former)
        response = RedirectResponse(_inside(to), 303, HEADERS)
        site.set_cookie(request, response, site.sessions.begin(identity))
        return response


def _problem(denied: Denied) -> str:
    if denied.status == 429:
        return f"Too many wrong keys. Try again in {denied.retry_after_s} seconds."
    if denied.status == 401:
        return "That is not a key of the admin or of a viewer."
    return denied.message[:1].upper() + denied.message[1:]


def _inside(to: str) -> str:
    """Where somebody wanted to go: an address of the dashboard, and none that leads elsewhere."""
    plain = to.isascii() and to.isprintable() and "\\" not in to and ".." not in to
    own = to.partition("?")[0].startswith(f"{PREFIX}/") and not to.startswith(LOGIN)
    return to if plain and own else PREFIX


async def leave(visit: Visit) -> Response:
    visit.site.sessions.end(visit.ticket)
    response = visit.to("/login")
    response.delete_cookie(COOKIE, path=PREFIX, httponly=True, samesite="strict")
    return response
