"""Credentials that are made for each upstream request, or renewed from time to time.

They come from a source that may block (files, metadata servers, token endpoints), so it is asked
in a thread: at first, then well before what it gave expires. A call waits only where there is no
valid credential.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.wire import AwsEntry, AzureEntry, GoogleEntry, ProviderEntry

RETRY_S = 5.0  # between two attempts of a source that fails
WAIT_S = 20.0  # for a credential, then the call is refused
EARLY_S = 300.0  # an access token is renewed this long before it expires
_LEAST_S = 30.0  # a call in flight must not see it expire
_REASON_CHARS_MAX = 300


class Signer(Protocol):
    """Authorises requests, without waiting for anything."""

    def lines(self, start: bytes, host: bytes, head: RequestHead, body: bytes) -> bytes:
        """Header lines to add, joined by CRLF. `start` is "METHOD target"."""


class Fetched(NamedTuple):
    """What a source gave."""

    signer: Signer
    renew_s: float  # ask again after this time
    valid_s: float


class Bearer:
    """One token for every request."""

    def __init__(self, token: str) -> None:
        self._line = b"authorization: Bearer " + token.encode("ascii")

    def lines(self, start: bytes, host: bytes, head: RequestHead, body: bytes) -> bytes:
        """The token, whatever is asked."""
        return self._line


def access_token(token: str, left_s: float) -> Fetched:
    """A token that expires so many seconds from now."""
    renew_s = left_s - EARLY_S if left_s > 2 * EARLY_S else left_s / 2
    return Fetched(Bearer(token), renew_s, left_s - _LEAST_S)


class Source(Protocol):
    """Where credentials come from."""

    def fetch(self) -> Fetched:
        """May block. May raise anything: whoever waits is told."""


class UpstreamAuth:
    """The credential of one provider, kept fresh."""

    def __init__(
        self,
        provider: str,
        load: Callable[[], Source],
        *,
        made_of: object = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.made_of = made_of
        self._provider = provider
        self._load = load  # imports what the source needs
        self._now_s = now_s
        self._source: Source | None = None
        self._signer: Signer | None = None
        self._renew_at = self._valid_until = 0.0
        self._pending: asyncio.Future[Fetched] | None = None
        self._failure: BaseException | None = None

    async def ready(self) -> None:
        """Return once there is a valid credential. Raises Refusal `upstream_credentials`."""
        now = self._now_s()
        if now >= self._renew_at:
            self.renew()
        if self._signer is not None and now < self._valid_until:
            return
        if self._pending is not None:
            await asyncio.wait([self._pending], timeout=WAIT_S)
        if self._signer is None or self._now_s() >= self._valid_until:
            failure = self._failure or TimeoutError("its source does not answer")
            reason = f"{type(failure).__name__}: {failure}"[:_REASON_CHARS_MAX]
            raise Refusal(
                "upstream_credentials",
                f"Tollkeeper has no valid credential for provider '{self._provider}' ({reason}).",
                retry_after_s=round(RETRY_S),
            ) from failure

    def lines(self, start: bytes, host: bytes, head: RequestHead, body: bytes) -> bytes:
        """Header lines for a request, once `ready` has returned."""
        assert self._signer is not None
        return self._signer.lines(start, host, head, body)

    def warm(self) -> None:
        """Ask the source for the first time."""
        if self._signer is None:
            self.renew()

    def renew(self) -> None:
        """Ask the source, unless it is being asked."""
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.run_in_executor(None, self._fetch)
            self._pending.add_done_callback(self._renewed)

    def _fetch(self) -> Fetched:
        if self._source is None:
            self._source = self._load()
        return self._source.fetch()

    def _renewed(self, done: asyncio.Future[Fetched]) -> None:
        self._pending = None
        if done.cancelled():
            return
        now = self._now_s()
        self._failure = done.exception()
        if self._failure is not None:
            self._renew_at = now + RETRY_S
            return
        fetched = done.result()
        self._signer = fetched.signer
        self._renew_at, self._valid_until = now + fetched.renew_s, now + fetched.valid_s


def auth_for(entry: ProviderEntry, before: UpstreamAuth | None) -> UpstreamAuth | None:
    """How requests to a provider are authorised; None where a fixed header does. The one before
    is kept while its configuration is the same."""
    made_of = (entry.name, entry.aws, entry.google, entry.azure)
    if before is not None and before.made_of == made_of:
        return before
    if entry.aws is not None:
        aws = entry.aws
        return UpstreamAuth(entry.name, lambda: _aws(aws), made_of=made_of)
    if entry.google is not None:
        google = entry.google
        return UpstreamAuth(entry.name, lambda: _google(google), made_of=made_of)
    if entry.azure is not None:
        azure = entry.azure
        return UpstreamAuth(entry.name, lambda: _azure(azure), made_of=made_of)
    return None


# These import what only the workers of such a provider need, up to tens of megabytes.


def _aws(entry: AwsEntry) -> Source:
    from proxy.upstream_aws import AwsSource  # noqa: PLC0415

    return AwsSource(entry)


def _google(entry: GoogleEntry) -> Source:
    from proxy.upstream_google import GoogleSource  # noqa: PLC0415

    return GoogleSource(entry)


def _azure(entry: AzureEntry) -> Source:
    from proxy.upstream_azure import AzureSource  # noqa: PLC0415

    return AzureSource(entry)
