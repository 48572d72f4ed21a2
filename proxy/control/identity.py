"""Who asks, and what they may see: the one answer for the admin API and the dashboard.

The admin's key may do everything; a viewer's (`admin.viewers`) reads one team's figures.
"""

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from db.report_filters import Within
from proxy.config import ADMIN_NAME, Admin
from proxy.wire import KeyEntry

FAILURES_MAX = 10  # of one address, within
FAILURE_WINDOW_S = 60.0
REQUESTS_MAX = 3_000  # of one name with a key, within
REQUEST_WINDOW_S = 60.0
ADDRESSES_MAX = 10_000  # that are remembered; beyond it the oldest are forgotten


class Role(IntEnum):
    """One may do whatever those below it may."""

    VIEWER = 1
    ADMIN = 2


class Denied(Exception):
    """Not let in, or not to this. `status` is HTTP's; `retry_after_s` is 0 or when to come back."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Identity:
    name: str
    role: Role
    team: str = ""  # ORG/TEAM, all that may be seen; "": everything

    def authorize(self, role: Role) -> None:
        """Raises Denied."""
        if self.role < role:
            raise Denied(403, "forbidden", f"{self.name!r} may read, and only that")

    def sees(self, organization: str, team: str) -> bool:
        return not self.team or self.team == f"{organization}/{team}"

    def sees_scope(self, scope: str, keys: Iterable[KeyEntry]) -> bool:
        """Whether a budget on it may be seen: that of the team, its projects and its `keys`."""
        if not self.team:
            return True
        kind, _, name = scope.partition("/")
        if kind == "customer":  # customer/team/ORG/TEAM/ID: as its template
            kind, _, name = name.partition("/")
            if kind != "key":
                return name.startswith(f"{self.team}/") and kind in ("team", "project")
            name = name.partition("/")[0]
        if kind == "key":
            return any(k.name == name and self.sees(k.organization, k.team) for k in keys)
        return scope == f"team/{self.team}" or (
            kind == "project" and name.startswith(f"{self.team}/")
        )

    def narrow(self, where: Mapping[str, str]) -> dict[str, str]:
        """The conditions of a report, as `Filters.where` has them, with what may be seen added.
        Raises Denied for another team's."""
        if not self.team:
            return dict(where)
        asked = where.get("team", self.team)
        if asked not in (self.team, self.team.partition("/")[2]):
            raise Denied(403, "forbidden", f"{self.name!r} sees the figures of {self.team} alone")
        return Within({**where, "team": self.team})


def identity_named(admin: Admin, name: str) -> Identity | None:
    """Of a session that was opened before: None once the configuration has nobody of that name."""
    return next((identity for identity, _ in _identities(admin) if identity.name == name), None)


def _identities(admin: Admin) -> list[tuple[Identity, str]]:
    """With their keys."""
    known = [(Identity(each.name, Role.VIEWER, each.team), each.key) for each in admin.viewers]
    if admin.key:
        known.append((Identity(ADMIN_NAME, Role.ADMIN), admin.key))
    return known


class Authenticator:
    """Tells keys in constant time, and makes whoever guesses wait."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count, since
        self._requests: dict[str, tuple[int, float]] = {}  # the same, by name

    def authenticate(self, admin: Admin, key: str, address: str) -> Identity:
        """Raises Denied: 403 without `admin.key`, 401 for a wrong key, 429 after too many."""
        if not admin.key:
            raise Denied(403, "admin_off", "admin.key is not set in the configuration")
        if not key:
            raise Denied(401, "unauthorized", "give the admin key as `Authorization: Bearer KEY`")
        network = _network(address)
        self._check_patience(network)
        found = self._find(admin, key)
        if found is None:
            self._note_failure(network)
            raise Denied(401, "unauthorized", "no such key: `Authorization: Bearer KEY`")
        return found

    def pace(self, identity: Identity) -> None:
        """One more request. Raises Denied, 429, after too many."""
        now = self._monotonic()
        count, since = self._requests.get(identity.name, (0, now))
        if now - since >= REQUEST_WINDOW_S:
            count, since = 0, now
        if count >= REQUESTS_MAX:
            left_s = int(since + REQUEST_WINDOW_S - now) + 1
            raise Denied(429, "rate_limited", f"more than {REQUESTS_MAX} in a minute", left_s)
        self._requests[identity.name] = (count + 1, since)

    def _find(self, admin: Admin, key: str) -> Identity | None:
        """Digests are compared, all of them: neither content nor length nor place shows."""
        given = _digest(key)
        found = None
        for identity, known in _identities(admin):
            if hmac.compare_digest(given, _digest(known)) and known:
                found = identity
        return found

    def _check_patience(self, network: str) -> None:
        count, since = self._failures.get(network, (0, 0.0))
        left_s = since + FAILURE_WINDOW_S - self._monotonic()
        if left_s <= 0:
            self._failures.pop(network, None)
        elif count >= FAILURES_MAX:
            raise Denied(429, "rate_limited", "too many wrong keys", int(left_s) + 1)

    def _note_failure(self, network: str) -> None:
        count, since = self._failures.get(network, (0, self._monotonic()))
        self._failures[network] = (count + 1, since)
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _network(address: str) -> str:
    """Who has one IPv6 address has a whole /64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
