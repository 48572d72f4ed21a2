"""Who asks, and what they may see."""

import pytest

from proxy.config import Admin, Viewer
from proxy.control import identity as identity_module
from proxy.control.identity import (
    FAILURE_WINDOW_S,
    FAILURES_MAX,
    Authenticator,
    Denied,
    Identity,
    Role,
    identity_named,
)
from proxy.wire import KeyEntry

ADMIN = Admin(key="k" * 20, viewers=[Viewer("lead", "v" * 20, "acme/search")])
LEAD = Identity("lead", Role.VIEWER, "acme/search")
HERE = "192.0.2.1"


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def door(clock):
    return Authenticator(lambda: clock[0])


def status_of(door, key, address=HERE, admin=ADMIN):
    try:
        door.authenticate(admin, key, address)
    except Denied as denied:
        return denied.status
    return 200


def a_key(number, name, team):
    return KeyEntry(
        id=number,
        sha256=f"{number:064}",
        name=name,
        organization_id=1,
        organization="acme",
        team_id=1,
        team=team,
        project_id=0,
        project="",
        user="",
        expires_at=0,
        revoked=False,
        models=(),
        providers=(),
        refusal_status=0,
    )


def test_keys_tell_who_asks(door):
    assert door.authenticate(ADMIN, "k" * 20, HERE) == Identity("admin", Role.ADMIN)
    assert door.authenticate(ADMIN, "v" * 20, HERE) == LEAD
    for key in ("", "x", "k" * 19, "k" * 21, "\udce4"):
        assert status_of(door, key) == 401
    assert status_of(door, "v" * 20, admin=Admin(viewers=ADMIN.viewers)) == 403


def test_who_guesses_waits_and_nobody_else(door, clock):
    for _ in range(FAILURES_MAX):
        assert status_of(door, "wrong") == 401
    assert status_of(door, "") == 401  # no guess
    with pytest.raises(Denied) as denied:
        door.authenticate(ADMIN, "k" * 20, HERE)
    assert (denied.value.status, denied.value.retry_after_s) == (429, FAILURE_WINDOW_S + 1)
    assert status_of(door, "k" * 20, "192.0.2.2") == 200
    clock[0] = FAILURE_WINDOW_S
    assert status_of(door, "k" * 20) == 200


def test_a_name_has_so_many_requests_a_minute(door, clock, monkeypatch):
    monkeypatch.setattr(identity_module, "REQUESTS_MAX", 2)
    other = Identity("admin", Role.ADMIN)
    for _ in range(2):
        door.pace(LEAD)
    clock[0] = 20.0
    with pytest.raises(Denied) as denied:
        door.pace(LEAD)
    assert (denied.value.status, denied.value.code) == (429, "rate_limited")
    assert denied.value.retry_after_s == 41
    door.pace(other)
    clock[0] = 60.0
    door.pace(LEAD)


def test_an_ipv6_host_is_its_network(door):
    for number in range(FAILURES_MAX):
        assert status_of(door, "wrong", f"2001:db8::{number + 1}") == 401
    assert status_of(door, "k" * 20, "2001:db8::ffff") == 429
    assert status_of(door, "k" * 20, "2001:db8:0:1::1") == 200


def test_addresses_that_are_remembered_are_bounded(door, monkeypatch):
    monkeypatch.setattr(identity_module, "ADDRESSES_MAX", 3)
    for number in range(10):
        status_of(door, "wrong", f"192.0.2.{number}")
    assert len(door._failures) == 3


def test_a_viewer_narrows_every_question_to_the_team():
    assert Identity("admin", Role.ADMIN).narrow({"team": "x"}) == {"team": "x"}
    assert LEAD.narrow({"model": "m"}) == {"model": "m", "team": "acme/search"}
    assert LEAD.narrow({"team": "search"}) == {"team": "acme/search"}
    for team in ("ads", "acme/ads", "globex/search", ""):
        with pytest.raises(Denied):
            LEAD.narrow({"team": team})
    with pytest.raises(Denied):
        LEAD.authorize(Role.ADMIN)


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        ("team/acme/search", True),
        ("project/acme/search/ranking", True),
        ("key/prod", True),
        ("team/acme/search2", False),
        ("project/acme/search2/x", False),
        ("organization/acme", False),
        ("user/acme/ann", False),
        ("key/other", False),
    ],
)
def test_a_viewer_sees_budgets_of_the_team_alone(scope, seen):
    keys = [a_key(1, "prod", "search"), a_key(2, "other", "ads")]
    assert LEAD.sees_scope(scope, keys) is seen
    assert Identity("admin", Role.ADMIN).sees_scope(scope, [])


def test_a_session_ends_when_the_configuration_forgets_its_name():
    assert identity_named(ADMIN, "lead") == LEAD
    assert identity_named(ADMIN, "gone") is None
    assert identity_named(Admin(), "admin") is None
