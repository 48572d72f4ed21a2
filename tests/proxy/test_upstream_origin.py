"""Base URLs and the proxies of an environment."""

import pytest

from proxy.upstream_origin import Origin, Proxies, Proxy

NONE = Proxies()
PROXIES = {"HTTP_PROXY": "http://plain:3128", "HTTPS_PROXY": "http://secure"}


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "host_header", "prefix"),
    [
        ("https://api.openai.com", "https", "api.openai.com", 443, b"api.openai.com", b""),
        ("https://api.openai.com/", "https", "api.openai.com", 443, b"api.openai.com", b""),
        ("https://a.example:443/x/y/", "https", "a.example", 443, b"a.example", b"/x/y"),
        ("http://A.example:8080/a%2Fb", "http", "a.example", 8080, b"a.example:8080", b"/a%2Fb"),
        ("http://[::1]:11434", "http", "::1", 11434, b"[::1]:11434", b""),
        ("https://bücher.example/é", "https", "xn--bcher-kva.example", 443,
         b"xn--bcher-kva.example", b"/%C3%A9"),
    ],
)  # fmt: skip
def test_parse(
    url: str, scheme: str, host: str, port: int, host_header: bytes, prefix: bytes
) -> None:
    origin = Origin.parse(url, NONE)
    assert (origin.scheme, origin.host, origin.port) == (scheme, host, port)
    assert (origin.host_header, origin.path_prefix) == (host_header, prefix)
    assert origin.tls is (scheme == "https")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("api.openai.com", "must start with http"),
        ("ftp://host", "must start with http"),
        ("https://", "no host"),
        ("https://user:secret@host", "no place in a base URL"),
        ("https://host/?a=b", "no place in a base URL"),
        ("https://host:port", "port is not a number"),
        ("https://host:99999", "port is not a number"),
        ("https://" + "x" * 70 + ".example", "not a host name"),
    ],
)
def test_parse_says_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Origin.parse(url, NONE)


def test_origins_share_connections_when_they_lead_to_the_same_place() -> None:
    one, same = (Origin.parse(f"https://host/{path}", NONE) for path in "ab")
    other = Origin.parse("https://host:444", NONE)
    proxied = Origin.parse("https://host", Proxies.from_environ(PROXIES))
    assert one.key == same.key
    assert len({one.key, other.key, proxied.key}) == 3


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxy"),
    [
        ("http://host", "", "plain"),
        ("https://host", "", "secure"),
        ("https://host", "*", None),
        ("https://host", "host", None),
        ("https://host", "HOST", None),
        ("https://host", " other , host ", None),
        ("https://a.host", "host", None),
        ("https://a.host", ".host", None),
        ("https://a.host", "*.host", None),
        ("https://ahost", "host", "secure"),
        ("https://host", "host:443", None),
        ("https://host", "host:8443", "secure"),
        ("https://10.1.2.3", "10.0.0.0/8", None),
        ("https://11.1.2.3", "10.0.0.0/8", "secure"),
        ("https://[fd00::1]", "fd00::/8", None),
        ("https://host", ",,", "secure"),
        ("http://localhost:11434", "", None),
        ("http://127.0.0.1:11434", "", None),
        ("http://[::1]:11434", "", None),
    ],
)
def test_which_proxy(url: str, no_proxy: str, proxy: str | None) -> None:
    chosen = Origin.parse(url, Proxies.from_environ(PROXIES | {"NO_PROXY": no_proxy})).proxy
    assert (chosen.host if chosen else None) == proxy


def test_the_lower_case_variable_wins() -> None:
    environ = {"HTTPS_PROXY": "http://upper", "https_proxy": "lower:8080", "no_proxy": "host"}
    proxies = Proxies.from_environ(environ)
    assert proxies.https == Proxy("lower", 8080)
    assert proxies.bypass == ("host",)


def test_the_environment_decides_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://p.example:1")
    monkeypatch.setenv("no_proxy", "")
    assert Origin.parse("https://host").proxy == Proxy("p.example", 1)


def test_credentials_of_a_proxy_are_sent_and_never_shown() -> None:
    proxy = Proxies.from_environ({"HTTP_PROXY": "http://us%40er:pa%3Ass@plain"}).http
    assert proxy is not None
    assert proxy.authorization == b"Basic dXNAZXI6cGE6c3M="
    origin = Origin.parse("http://host", Proxies(http=proxy))
    assert "dXNAZXI6" not in repr(origin)
    assert "dXNAZXI6" not in origin.key


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HTTPS_PROXY", "https://p", "HTTPS_PROXY: only http:// proxies"),
        ("HTTP_PROXY", "socks5://p", "HTTP_PROXY: only http:// proxies"),
        ("HTTP_PROXY", "http://", "HTTP_PROXY: no host"),
        ("http_proxy", "p:x", "http_proxy: the port"),
    ],
)
def test_a_proxy_that_cannot_be_used_names_its_variable(
    variable: str, value: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Proxies.from_environ({variable: value})


def test_absolute_form() -> None:
    proxies = Proxies.from_environ({"HTTP_PROXY": "http://u:p@plain"})
    origin = Origin.parse("http://host:81/x", proxies)
    assert origin.absolute_form
    assert not Origin.parse("https://host", proxies).absolute_form
    head = origin.to_absolute_form(b"POST /x/y?z HTTP/1.1\r\nhost: host:81\r\n\r\n")
    assert head == (
        b"POST http://host:81/x/y?z HTTP/1.1\r\nproxy-authorization: Basic dTpw\r\n"
        b"host: host:81\r\n\r\n"
    )
