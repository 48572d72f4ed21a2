"""Credentials that come from a source: renewed early, waited for only where there is none."""

import asyncio
import threading

import pytest

from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.upstream_auth import RETRY_S, Fetched, UpstreamAuth, auth_for
from proxy.wire import AwsEntry, AzureEntry, GoogleEntry, ProviderEntry


class Line:
    def __init__(self, line: bytes) -> None:
        self.line = line

    def lines(self, start: bytes, host: bytes, head: RequestHead, body: bytes) -> bytes:
        return self.line


class Scripted:
    """A source that gives 1, 2, 3...; each for 60 s of which the last 20 are for renewing."""

    def __init__(self) -> None:
        self.asked = 0
        self.threads: set[str] = set()
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self) -> Fetched:
        self.threads.add(threading.current_thread().name)
        self.asked += 1
        number = self.asked
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        return Fetched(Line(b"x: %d" % number), 40.0, 60.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def an_auth() -> tuple[UpstreamAuth, Scripted, Clock]:
    source, clock = Scripted(), Clock()
    return UpstreamAuth("bedrock", lambda: source, now_s=clock), source, clock


def line(auth: UpstreamAuth) -> bytes:
    return auth.lines(b"POST /", b"h", RequestHead([]), b"")


async def settled(auth: UpstreamAuth) -> None:
    if auth._pending is not None:
        await asyncio.wait([auth._pending])


async def test_the_first_call_waits_off_the_event_loop() -> None:
    auth, source, _ = an_auth()
    await asyncio.gather(*(auth.ready() for _ in range(5)))
    assert line(auth) == b"x: 1"
    assert source.asked == 1
    assert threading.current_thread().name not in source.threads


async def test_a_valid_credential_is_renewed_behind_the_calls() -> None:
    auth, source, clock = an_auth()
    await auth.ready()
    clock.now = 39.0
    await auth.ready()
    assert source.asked == 1
    source.gate.clear()
    clock.now = 41.0
    await auth.ready()  # returns although the source does not
    assert line(auth) == b"x: 1"
    source.gate.set()
    await settled(auth)
    assert line(auth) == b"x: 2"
    assert source.asked == 2


async def test_an_expired_credential_is_waited_for() -> None:
    auth, _, clock = an_auth()
    await auth.ready()
    clock.now = 61.0
    await auth.ready()
    assert line(auth) == b"x: 2"


async def test_a_failing_source_refuses_calls_only_once_nothing_is_valid() -> None:
    auth, source, clock = an_auth()
    await auth.ready()
    source.failure = OSError("the metadata server is gone")
    clock.now = 45.0
    await auth.ready()
    await settled(auth)
    assert line(auth) == b"x: 1"

    clock.now = 70.0
    for _ in range(3):
        with pytest.raises(Refusal) as caught:
            await auth.ready()
    assert caught.value.code == "upstream_credentials"
    assert "bedrock" in caught.value.message
    assert "OSError: the metadata server is gone" in caught.value.message
    assert source.asked == 3  # not asked again at once

    source.failure = None
    clock.now += RETRY_S
    await auth.ready()
    assert line(auth) == b"x: 4"


async def test_what_cannot_be_loaded_is_a_refusal_too() -> None:
    def load() -> Scripted:
        raise ImportError("No module named 'botocore'")

    with pytest.raises(Refusal, match="botocore"):
        await UpstreamAuth("bedrock", load).ready()


async def test_warming_asks_once() -> None:
    auth, source, _ = an_auth()
    auth.warm()
    auth.warm()
    await auth.ready()
    auth.warm()
    assert source.asked == 1


def an_entry(**fields: object) -> ProviderEntry:
    return ProviderEntry("b", "bedrock", "http://127.0.0.1:9", "", "", "bedrock", **fields)  # type: ignore[arg-type]


def test_a_fixed_key_needs_none() -> None:
    assert auth_for(an_entry(), None) is None


@pytest.mark.parametrize(
    "cloud",
    [
        {"aws": AwsEntry("us-east-1")},
        {"google": GoogleEntry("key.json")},
        {"azure": AzureEntry("https://login", "t", "c", "s", "", "scope")},
    ],
)
def test_it_is_kept_while_its_configuration_is_the_same(cloud: dict[str, object]) -> None:
    first = auth_for(an_entry(**cloud), None)
    assert first is not None
    assert auth_for(an_entry(**cloud), first) is first
    other = auth_for(an_entry(aws=AwsEntry("eu-west-1")), first)
    assert other is not None
    assert other is not first
    assert auth_for(an_entry(), first) is None
