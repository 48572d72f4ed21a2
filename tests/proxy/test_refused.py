"""Refused calls on their way to control: few facts, of bounded size."""

from types import SimpleNamespace

from msgspec import msgpack

from proxy.errors import Refusal
from proxy.refused import (
    FOLDED,
    GROUPS_MAX,
    MESSAGE_CHARS_MAX,
    PER_STATUS_MAX,
    SCOPE_CHARS_MAX,
    TEXT_CHARS_MAX,
    RefusedCalls,
)
from proxy.wire import Refused, Status


def a_call(**fields: object) -> SimpleNamespace:
    values = {
        "principal": None,
        "provider": None,
        "facts": None,
        "at_ms": 1,
        "request_id": "id",
        "key_name": "",
        "refusal_status": lambda refusal: refusal.status,
    }
    return SimpleNamespace(**(values | fields))


def test_what_is_not_known_yet_is_empty():
    calls = RefusedCalls()
    calls.add(a_call(), Refusal("invalid_api_key", "No such key."))
    (refused,), (group,) = calls.take()
    assert (group.code, group.team, group.calls) == ("invalid_api_key", "", 1)
    assert (refused.code, refused.status, refused.team, refused.model) == (
        "invalid_api_key", 401, "", "",
    )  # fmt: skip
    assert calls.take() == ([], [])


def test_what_clients_send_is_cut_and_survives_the_wire():
    key = SimpleNamespace(organization="acme", team="search")
    call = a_call(
        principal=SimpleNamespace(key=key, project="ranking", user="u" * 999),
        provider=SimpleNamespace(name="openai"),
        facts=SimpleNamespace(model="m" * 99_999),
        key_name="prod",
    )
    calls = RefusedCalls()
    calls.add(call, Refusal("budget_exceeded", "x" * 9_999, {"limit": 5, "scope": "s" * 999}))
    refused, groups = calls.take()
    status = Status([], refused=refused, refused_groups=groups)
    status = msgpack.decode(msgpack.encode(status), type=Status)
    (refused,), (group,) = status.refused, status.refused_groups
    assert (len(group.model), len(group.scope)) == (TEXT_CHARS_MAX, SCOPE_CHARS_MAX)
    assert isinstance(refused, Refused)
    assert len(refused.model) == len(refused.user) == TEXT_CHARS_MAX
    assert len(refused.message) == MESSAGE_CHARS_MAX
    assert refused.details == {"limit": "5", "scope": "s" * TEXT_CHARS_MAX}


def test_of_a_flood_some_are_left_out_and_all_are_counted():
    calls = RefusedCalls()
    for number in range(2 * GROUPS_MAX):
        facts = SimpleNamespace(model=f"m-{number}")
        calls.add(a_call(at_ms=number, facts=facts), Refusal("overloaded", "Try again."))
    refused, groups = calls.take()
    assert len(refused) == PER_STATUS_MAX
    assert len(groups) == GROUPS_MAX + 1
    assert [(each.model, each.calls, each.last_at_ms) for each in groups[-2:]] == [
        (f"m-{GROUPS_MAX - 1}", 1, GROUPS_MAX - 1), (FOLDED, GROUPS_MAX, 2 * GROUPS_MAX - 1),
    ]  # fmt: skip
