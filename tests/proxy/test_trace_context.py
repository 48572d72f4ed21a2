"""W3C Trace Context, by the rules of the recommendation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace_context import STATE_MEMBERS_MAX, Parent, header_lines, parse_parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


def parsed(*values: bytes, states: tuple[bytes, ...] = ()) -> Parent | None:
    headers = [(b"host", b"x"), *((b"traceparent", value) for value in values)]
    return parse_parent([*headers, *((b"tracestate", state) for state in states)])


def test_a_parent_is_read() -> None:
    assert parsed(GOOD) == Parent(TRACE, SPAN, 1, "")
    assert parsed(f" 00-{TRACE}-{SPAN}-00 ".encode()) == Parent(TRACE, SPAN, 0, "")


def test_a_later_version_may_say_more() -> None:
    assert parsed(f"cc-{TRACE}-{SPAN}-09-more".encode()) == Parent(TRACE, SPAN, 9, "")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD.upper(),
        GOOD + b"-more",  # version 00 has four fields
        GOOD + b".",
        b"ff" + GOOD[2:],
        GOOD[:-1],
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE[:-1]}-{SPAN}-01".encode(),
        GOOD.replace(b"a", b"g"),
    ],
)
def test_what_is_no_parent_starts_a_new_trace(value: bytes) -> None:
    assert parsed(value, states=(b"a=1",)) is None


def test_two_parents_are_none() -> None:
    assert parsed(GOOD, GOOD) is None
    assert parsed() is None


def test_states_keep_their_order() -> None:
    found = parsed(GOOD, states=(b"rojo=00f067aa0ba902b7, congo=t61", b"", b"a@b=c=d"))
    assert found is not None
    assert found.state == "rojo=00f067aa0ba902b7,congo=t61,a@b=c=d"


@pytest.mark.parametrize(
    "state",
    [
        b"a=\xff",
        b"nothing",
        b",".join(b"k%d=v" % i for i in range(STATE_MEMBERS_MAX + 1)),
        b"a=" + b"x" * 9000,
        b"a=1\r\nx-injected: 1",
    ],
)
def test_a_state_that_cannot_be_passed_on_is_dropped_alone(state: bytes) -> None:
    found = parsed(GOOD, states=(state,))
    assert found == Parent(TRACE, SPAN, 1, "")


@given(value=st.binary(max_size=80), state=st.binary(max_size=60))
def test_nothing_a_caller_sends_breaks_a_head(value: bytes, state: bytes) -> None:
    for parent in (parsed(value, states=(state,)), parsed(GOOD, states=(state,))):
        if parent is not None:
            lines = header_lines(parent.trace_id, SPAN, sampled=True, state=parent.state)
            assert lines.count(b"\r\n") == 1 + bool(parent.state)
            assert lines.endswith(b"\r\n")
            assert b"\n" not in lines.replace(b"\r\n", b"")


def test_what_goes_on() -> None:
    lines = header_lines(TRACE, SPAN, sampled=False, state="a=1")
    assert lines == f"traceparent: 00-{TRACE}-{SPAN}-00\r\ntracestate: a=1\r\n".encode()
