"""Who is logged in: a signed cookie, no table. What signs it is derived from `admin.key`, so that
sessions survive a restart and end when that key, or the key somebody came with, is changed."""

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from msgspec import Struct

from proxy.config import ADMIN_NAME, Admin
from proxy.control.identity import Identity, identity_named

SESSION_S = 12 * 3600
LOGIN_S = 3600  # a login form may be left open this long
COOKIE_CHARS_MAX = 1024
ENDED_MAX = 10_000  # logged out before their time: the oldest are forgotten
_PURPOSE = b"tollkeeper dashboard 1"


class Ticket(Struct, array_like=True, frozen=True):
    """What a cookie says. Nobody is logged in with one without a name: it is a login form's."""

    id: str
    name: str
    proof: str  # of the key the person came with
    expires_at: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Ticket).decode


class Sessions:
    """`admin` is the configuration's section as it is now. Without `admin.key` nobody gets in."""

    def __init__(self, admin: Callable[[], Admin], now_s: Callable[[], float]) -> None:
        self._admin = admin
        self._now_s = now_s
        self._ended: OrderedDict[str, None] = OrderedDict()

    def form(self) -> Ticket:
        """For a login form."""
        return self._ticket("", "", LOGIN_S)

    def begin(self, identity: Identity) -> Ticket:
        """A session with an id that nobody can have known before."""
        return self._ticket(identity.name, self._proof(identity.name), SESSION_S)

    def _ticket(self, name: str, proof: str, valid_s: int) -> Ticket:
        return Ticket(secrets.token_urlsafe(18), name, proof, int(self._now_s()) + valid_s)

    def end(self, ticket: Ticket) -> None:
        self._ended[ticket.id] = None
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    def identity(self, ticket: Ticket) -> Identity | None:
        """None: the session is over, or its key is not in the configuration any more."""
        proof = self._proof(ticket.name)
        if not proof or not hmac.compare_digest(proof.encode(), ticket.proof.encode()):
            return None
        if not self.lives(ticket):
            return None
        return identity_named(self._admin(), ticket.name)

    def lives(self, ticket: Ticket) -> bool:
        return ticket.id not in self._ended and ticket.expires_at > self._now_s()

    # --- signed

    def seal(self, ticket: Ticket) -> str:
        """As a cookie's value."""
        body = _text(_encode(ticket))
        return f"{body}.{self._sign('cookie', body)}"

    def open(self, cookie: str) -> Ticket | None:
        """None: not one of ours, or too old."""
        body, _, signature = cookie.partition(".")
        if len(cookie) > COOKIE_CHARS_MAX or not self._is_signed("cookie", body, signature):
            return None
        ticket = _decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return ticket if self.lives(ticket) else None

    def token(self, ticket: Ticket) -> str:
        """What a form of this session carries."""
        return self._sign("form", ticket.id)

    def is_token(self, ticket: Ticket, token: str) -> bool:
        return self._is_signed("form", ticket.id, token)

    def _is_signed(self, purpose: str, text: str, signature: str) -> bool:
        if not self._admin().key:
            return False
        expected = self._sign(purpose, text).encode()
        return hmac.compare_digest(expected, signature.encode(errors="replace"))

    def _sign(self, purpose: str, text: str) -> str:
        secret = hmac.digest(self._admin().key.encode(), _PURPOSE, hashlib.sha256)
        return _text(hmac.digest(secret, f"{purpose}:{text}".encode(errors="replace"), "sha256"))

    def _proof(self, name: str) -> str:
        """That a key is still the one it was; "" for nobody."""
        admin = self._admin()
        keys = {viewer.name: viewer.key for viewer in admin.viewers} | {ADMIN_NAME: admin.key}
        return self._sign("key", keys[name]) if keys.get(name) else ""


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
