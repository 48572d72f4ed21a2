"""The edits of a request's head, all of them, and of a reply's headers."""

from proxy.client import join_lines, split_lines
from proxy.forward import ReplyHead, own_framing, reply_headers, request_head
from proxy.request_head import RequestHead

CREDENTIAL = b"authorization: Bearer sk-real"


def head(headers: list[tuple[bytes, bytes]], framing: bytes | None = None) -> list[bytes]:
    read = RequestHead(headers)
    framing = b"content-length: 2" if framing is None else framing
    raw = request_head(b"POST /v1/x?a=1", b"api.test", read, CREDENTIAL, framing)
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")


def test_what_is_set() -> None:
    assert head([]) == [
        b"POST /v1/x?a=1 HTTP/1.1",
        b"host: api.test",
        b"accept-encoding: identity",
        CREDENTIAL,
        b"content-length: 2",
    ]


def test_without_a_credential_no_empty_line_is_sent() -> None:
    raw = request_head(b"GET /", b"h", RequestHead([]), b"", b"")
    assert raw == b"GET / HTTP/1.1\r\nhost: h\r\naccept-encoding: identity\r\n\r\n"


def test_what_is_dropped() -> None:
    dropped = [
        (b"host", b"proxy"),
        (b"authorization", b"Bearer tk"),
        (b"x-api-key", b"tk"),
        (b"api-key", b"tk"),
        (b"x-goog-api-key", b"tk"),
        (b"x-tollkeeper-key", b"tk"),
        (b"x-tollkeeper-user", b"ann"),
        (b"x-forwarded-for", b"10.0.0.1"),
        (b"forwarded", b"for=10.0.0.1"),
        (b"baggage", b"user=ann"),
        (b"expect", b"100-continue"),
        (b"x-http-method-override", b"POST"),
        (b"connection", b"keep-alive, x-hop"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"proxy-authorization", b"Basic x"),
        (b"accept-encoding", b"gzip, br"),
        (b"content-length", b"99"),
    ]
    assert head(dropped) == head([])


def test_what_stays_in_its_order() -> None:
    kept = [
        (b"user-agent", b"OpenAI/Python 3.54.0"),
        (b"content-type", b"application/json"),
        (b"x-stainless-retry-count", b"0"),
        (b"anthropic-beta", b"a,b"),
        (b"anthropic-beta", b"c"),
        (b"traceparent", b"00-1-2-01"),
        (b"x-for-sale", b"1"),
    ]
    lines = head(kept)
    assert lines[4:-1] == [name + b": " + value for name, value in kept]


def test_the_clients_own_framing_for_streamed_bodies() -> None:
    assert own_framing(RequestHead([(b"content-length", b"99")])) == b"content-length: 99"
    chunked = RequestHead([(b"transfer-encoding", b"chunked")])
    assert own_framing(chunked) == b"transfer-encoding: chunked"
    assert own_framing(RequestHead([])) == b""


def test_reply_headers() -> None:
    reply = [
        (b"content-type", b"application/json"),
        (b"connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"7"),
        (b"x-request-id", b"req_1"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    kept = [reply[0], *reply[4:]]
    assert reply_headers(reply, keep_length=False) == kept
    assert reply_headers(reply, keep_length=True) == [reply[0], *reply[3:]]


def test_a_replys_head_is_read_once() -> None:
    head = ReplyHead(
        [
            (b"content-type", b"application/json"),
            (b"connection", b"keep-alive"),
            (b"content-length", b"12"),
            (b"x-empty", b""),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b: 2"),
        ]
    )
    assert (head.content_type, head.content_encoding, head.length) == (
        b"application/json",
        b"",
        b"12",
    )
    assert head.headers == [
        (b"content-type", b"application/json"),
        (b"x-empty", b""),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b: 2"),
    ]
    assert head.lines == join_lines(head.headers)


def test_a_head_without_lines() -> None:
    assert ReplyHead([]).lines == join_lines([]) == b""
    assert split_lines(b"") == []
