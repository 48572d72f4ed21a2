"""A session as a conversation: what a worker may say, and when."""

import pytest

from proxy.control.session import Session
from proxy.wire import Ack, Drain, Hello, Slices, Status, Unwant, Want, Welcome

WELCOME = Welcome(1, "host", "boot", "/journal", "os", 2**26)
HELLO = Hello(b"j" * 16, 7)


class Channel:
    def __init__(self):
        self.sent, self.closed = [], False

    def start(self, on_message, on_close):
        self.say, self.hang_up = on_message, on_close

    def send(self, message):
        self.sent.append(message)

    def close(self):
        self.closed = True


class Host:
    def __init__(self):
        self.heard = []

    def on_hello(self, session):
        self.heard.append("hello")

    def on_status(self, session, status):
        self.heard.append(status)

    def on_want(self, session, want):
        self.heard.append(want)

    def on_unwant(self, session, unwant):
        self.heard.append(unwant)

    def on_gone(self, session):
        self.heard.append("gone")


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def session(channel, host):
    session = Session(channel, host)
    session.start(WELCOME)
    return session


def test_a_conversation(session, channel, host):
    said = [Status([]), Want(b"c", [], 1), Unwant(b"c")]
    channel.say(HELLO)
    for message in said:
        channel.say(message)
    session.drain()
    channel.hang_up()
    assert channel.sent == [WELCOME, Drain()]
    assert host.heard == ["hello", *said, "gone"]
    assert (session.journal_id, session.pid, session.gone) == (HELLO.journal_id, 7, True)


def test_acknowledgements_only_grow(session, channel):
    channel.say(HELLO)
    channel.say(Ack(3))
    channel.say(Ack(2))
    assert session.acked == 3


@pytest.mark.parametrize(
    "messages",
    [
        [Status([])],
        [Hello(b"short", 7)],
        [Hello(b"j" * 16, 7, version=99)],
        [HELLO, HELLO],
        [HELLO, Slices([], [])],
    ],
    ids=["no hello", "no journal", "other version", "hello twice", "not a worker's"],
)
def test_who_breaks_the_protocol_is_cut_off(session, channel, host, messages):
    for message in messages:
        channel.say(message)
    assert channel.closed
    assert host.heard in ([], ["hello"])
