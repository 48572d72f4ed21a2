"""Where calls go: an origin and the way to it, decided once when a provider is configured."""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, quote, unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
PATH_CHARACTERS = "/%:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy in front of providers."""

    host: str
    port: int
    authorization: bytes = field(default=b"", repr=False)  # value of `proxy-authorization`, if any


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of an environment, with curl's and Go's reading of the variables."""

    http: Proxy | None = None
    https: Proxy | None = None
    bypass: tuple[str, ...] = ()  # NO_PROXY entries, lower case, without a leading dot

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Proxies":
        """Read HTTP_PROXY, HTTPS_PROXY and NO_PROXY; the lower-case name wins.

        Raises ValueError naming the variable if a proxy cannot be used.
        """
        entries = _variable(environ, "NO_PROXY")[1].lower().split(",")
        return cls(
            http=_proxy(*_variable(environ, "HTTP_PROXY")),
            https=_proxy(*_variable(environ, "HTTPS_PROXY")),
            bypass=tuple(name for entry in entries if (name := _bypass_entry(entry))),
        )

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for an origin; None to connect directly. Loopback is always direct."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or self._bypassed(host, port):
            return None
        return proxy

    def _bypassed(self, host: str, port: int) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(_matches(entry, host, port, address) for entry in self.bypass)


@dataclass(frozen=True, slots=True)
class Origin:
    """A provider's scheme, host and port, and what every request to it needs."""

    url: str
    scheme: str
    host: str
    port: int
    host_header: bytes
    path_prefix: bytes  # path in front of every request path, without a trailing slash; often empty
    proxy: Proxy | None
    key: str  # origins with the same key share connections

    @classmethod
    def parse(cls, url: str, proxies: Proxies | None = None) -> "Origin":
        """`proxies` None: those of the environment. Raises ValueError saying what is wrong."""
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS:
            raise ValueError(f"{url!r}: the URL must start with http:// or https://")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                f"{url!r}: credentials, query and fragment have no place in a base URL"
            )
        host = _host(parts, url)
        port = _port(parts, url) or DEFAULT_PORTS[parts.scheme]
        if proxies is None:
            proxies = Proxies.from_environ(os.environ)
        proxy = proxies.choose(parts.scheme, host, port)
        netloc = f"[{host}]" if ":" in host else host
        if port != DEFAULT_PORTS[parts.scheme]:
            netloc = f"{netloc}:{port}"
        via = f" via {proxy.host}:{proxy.port}" if proxy else ""
        return cls(
            url=url,
            scheme=parts.scheme,
            host=host,
            port=port,
            host_header=netloc.encode("ascii"),
            path_prefix=quote(parts.path.rstrip("/"), safe=PATH_CHARACTERS).encode("ascii"),
            proxy=proxy,
            key=f"{parts.scheme}://{host}:{port}{via}",
        )

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def absolute_form(self) -> bool:
        """True if requests go to an HTTP proxy that must be told the whole URL."""
        return self.proxy is not None and not self.tls

    def to_absolute_form(self, head: bytes) -> bytes:
        """Rewrite a request head for the proxy of a plain http origin."""
        assert self.proxy is not None
        method, _, rest = head.partition(b" ")
        if self.proxy.authorization:
            line, _, fields = rest.partition(b"\r\n")
            rest = b"".join(
                (line, b"\r\nproxy-authorization: ", self.proxy.authorization, b"\r\n", fields)
            )
        return b"".join((method, b" http://", self.host_header, rest))


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    lower = name.lower()
    return (lower, environ[lower]) if lower in environ else (name, environ.get(name, ""))


def _bypass_entry(entry: str) -> str:
    entry = entry.strip()
    return entry if entry == "*" else entry.removeprefix("*").removeprefix(".")


def _proxy(variable: str, value: str) -> Proxy | None:
    if not value.strip():
        return None
    url = value.strip() if "://" in value else f"http://{value.strip()}"
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError(f"{variable}: only http:// proxies are supported, not {parts.scheme}://")
    authorization = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + b64encode(pair.encode())
    return Proxy(_host(parts, variable), _port(parts, variable) or 80, authorization)


def _host(parts: SplitResult, where: str) -> str:
    if not parts.hostname:
        raise ValueError(f"{where}: no host in the URL")
    try:
        return parts.hostname.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"{where}: {parts.hostname!r} is not a host name") from None


def _port(parts: SplitResult, where: str) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"{where}: the port is not a number below 65536") from None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int, address: IPv4Address | IPv6Address | None) -> bool:
    """One NO_PROXY entry: everything, a network, or a host with its subdomains (and a port)."""
    if entry == "*":
        return True
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    name, colon, wanted_port = entry.rpartition(":")
    if colon and wanted_port.isdigit():
        if int(wanted_port) != port:
            return False
        entry = name
    return host == entry or host.endswith("." + entry)
