"""Access tokens for Google Cloud, by google-auth. Imported where a provider is configured to use
them, and only there."""

from datetime import UTC, datetime

import google.auth
from google.auth.credentials import Credentials
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from proxy.request_head import RequestHead
from proxy.upstream_auth import Fetched
from proxy.wire import GoogleEntry

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
EARLY_S = 300.0  # a token is renewed this long before it expires
_LEAST_S = 30.0  # a call in flight must not see it expire
_UNKNOWN_S = 300.0  # of a token that does not say when it expires


class GoogleSource:
    """A service account of the configuration, else the application default credentials."""

    def __init__(self, entry: GoogleEntry) -> None:
        self._credentials: Credentials
        if entry.service_account_file:
            self._credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                entry.service_account_file, scopes=SCOPES
            )
        else:
            self._credentials, _ = google.auth.default(scopes=SCOPES)
        self._request = Request()

    def fetch(self) -> Fetched:
        """Raises what google-auth raises."""
        self._credentials.refresh(self._request)  # type: ignore[no-untyped-call]
        expiry = self._credentials.expiry  # UTC, without saying so
        left = _UNKNOWN_S
        if expiry is not None:
            left = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        renew_s = left - EARLY_S if left > 2 * EARLY_S else left / 2
        return Fetched(GoogleSigner(str(self._credentials.token)), renew_s, left - _LEAST_S)


class GoogleSigner:
    """One token for every request."""

    def __init__(self, token: str) -> None:
        self._line = b"authorization: Bearer " + token.encode("ascii")

    def lines(self, start: bytes, host: bytes, head: RequestHead, body: bytes) -> bytes:
        """The token, whatever is asked."""
        return self._line
