"""Access tokens for Google Cloud, by google-auth. Imported where a provider is configured to use
them, and only there."""

from datetime import UTC, datetime

import google.auth
from google.auth.credentials import Credentials
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from proxy.upstream_auth import Fetched, access_token
from proxy.wire import GoogleEntry

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
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
        return access_token(str(self._credentials.token), left)
