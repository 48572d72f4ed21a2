"""Cookies that nobody else can make, and that end when they should."""

import pytest

from proxy.config import Admin, Viewer
from proxy.control.dashboard.sessions import ENDED_MAX, LOGIN_S, SESSION_S, Sessions
from proxy.control.identity import ADMIN_NAME, Identity, Role

ADMIN = Admin(key="the-admin-key", viewers=[Viewer("lead", "the-viewer-key-x", "acme/search")])
IDENTITY = Identity(ADMIN_NAME, Role.ADMIN)
LEAD = Identity("lead", Role.VIEWER, "acme/search")


class Desk:
    def __init__(self) -> None:
        self.admin, self.now_s = ADMIN, 1_000_000.0
        self.sessions = self.restarted()

    def restarted(self) -> Sessions:
        return Sessions(lambda: self.admin, lambda: self.now_s)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_session_survives_a_restart(desk):
    cookie = desk.sessions.seal(desk.sessions.begin(LEAD))
    ticket = desk.restarted().open(cookie)
    assert desk.restarted().identity(ticket) == LEAD


def test_each_session_has_an_id_of_its_own(desk):
    assert desk.sessions.begin(IDENTITY).id != desk.sessions.begin(IDENTITY).id


def test_a_login_form_is_no_session(desk):
    ticket = desk.sessions.form()
    assert desk.sessions.open(desk.sessions.seal(ticket)) == ticket
    assert desk.sessions.identity(ticket) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cookie: cookie[:-2],
        lambda cookie: "A" + cookie,
        lambda cookie: cookie.replace(".", ""),
        lambda cookie: cookie.partition(".")[0] + ".\xe4",
        lambda cookie: ".",
        lambda cookie: "x" * 5_000,
    ],
)
def test_a_cookie_that_is_not_ours_is_none(desk, spoil):
    assert desk.sessions.open(spoil(desk.sessions.seal(desk.sessions.begin(IDENTITY)))) is None


def test_it_ends_with_its_time_at_logout_and_with_its_key(desk):
    ticket = desk.sessions.begin(LEAD)
    cookie = desk.sessions.seal(ticket)
    desk.now_s += SESSION_S
    assert desk.sessions.open(cookie) is None
    desk.now_s -= 1
    assert desk.sessions.identity(ticket) == LEAD
    desk.admin = Admin(key=ADMIN.key, viewers=[Viewer("lead", "another-key-of-it", "acme/ads")])
    assert desk.sessions.identity(ticket) is None
    desk.admin = Admin(key="another", viewers=ADMIN.viewers)
    assert desk.sessions.open(cookie) is None
    desk.admin = Admin()
    assert desk.sessions.open(cookie) is None
    desk.admin = ADMIN
    desk.sessions.end(ticket)
    assert desk.sessions.open(cookie) is None
    assert desk.sessions.identity(ticket) is None


def test_a_form_can_wait_an_hour(desk):
    ticket = desk.sessions.form()
    desk.now_s += LOGIN_S
    assert not desk.sessions.lives(ticket)


def test_tokens_are_of_one_session(desk):
    one, other = desk.sessions.begin(IDENTITY), desk.sessions.begin(IDENTITY)
    token = desk.sessions.token(one)
    assert desk.sessions.is_token(one, token)
    assert not desk.sessions.is_token(other, token)
    assert not desk.sessions.is_token(one, "")
    assert token not in desk.sessions.seal(one)


def test_what_is_remembered_of_ended_sessions_is_bounded(desk):
    for _ in range(ENDED_MAX + 5):
        desk.sessions.end(desk.sessions.form())
    assert len(desk.sessions._ended) == ENDED_MAX
