"""Refused calls on their way to control: few facts, of bounded size."""

from types import SimpleNamespace

from msgspec import msgpack

from proxy.errors import Refusal
from proxy.refused import MESSAGE_CHARS_MAX, PER_STATUS_MAX, TEXT_CHARS_MAX, RefusedCalls
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
    (refused,) = calls.take()
    assert (refused.code, refused.status, refused.team, refused.model) == (
        "invalid_api_key", 401, "", "",
    )  # fmt: skip
    assert calls.take() == []


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
    status = Status([], refused=calls.take())
    (refused,) = msgpack.decode(msgpack.encode(status), type=Status).refused
    assert isinstance(refused, Refused)
    assert len(refused.model) == len(refused.user) == TEXT_CHARS_MAX
    assert len(refused.message) == MESSAGE_CHARS_MAX
    assert refused.details == {"limit": "5", "scope": "s" * TEXT_CHARS_MAX}


def test_a_flood_is_left_out():
    calls = RefusedCalls()
    for _ in range(PER_STATUS_MAX + 5):
        calls.add(a_call(), Refusal("overloaded", "Try again."))
    assert len(calls.take()) == PER_STATUS_MAX
