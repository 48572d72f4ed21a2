"""Access tokens of Microsoft Entra, by the OAuth 2.0 client credentials flow: an application with a
secret, or with a token of another issuer that it trusts (a workload identity). Imported where a
provider is configured to use them, and only there.
"""

import json
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from proxy.upstream_auth import Fetched, access_token
from proxy.wire import AzureEntry

TIMEOUT_S = 15.0
_ANSWER_BYTES_MAX = 64 * 1024
_REASON_CHARS_MAX = 200
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class AzureTokenError(Exception):
    """What the token endpoint said instead of giving a token."""


class AzureSource:
    """An application of the configuration."""

    def __init__(self, entry: AzureEntry) -> None:
        self._entry = entry
        authority = entry.authority.rstrip("/")
        self._url = f"{authority}/{quote(entry.tenant_id, safe='')}/oauth2/v2.0/token"
        self._opener = build_opener(_NoRedirects)

    def fetch(self) -> Fetched:
        """Raises AzureTokenError, OSError where nobody answers or the file cannot be read."""
        request = Request(self._url, urlencode(self._form()).encode())  # noqa: S310 - checked
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                return _token(reply.read(_ANSWER_BYTES_MAX))
        except HTTPError as exc:
            with exc:
                raise AzureTokenError(_reason(exc.code, exc.read(_ANSWER_BYTES_MAX))) from exc

    def _form(self) -> dict[str, str]:
        entry = self._entry
        form = {
            "grant_type": "client_credentials",
            "client_id": entry.client_id,
            "scope": entry.scope,
        }
        if entry.client_secret:
            return form | {"client_secret": entry.client_secret}
        token = Path(entry.federated_token_file).read_text("ascii")  # it is replaced every hour
        return form | {"client_assertion_type": _ASSERTION, "client_assertion": token.strip()}


class _NoRedirects(HTTPRedirectHandler):
    """A secret is for one host."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _token(answer: bytes) -> Fetched:
    try:
        fields = json.loads(answer)
        return access_token(fields["access_token"], float(fields["expires_in"]))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AzureTokenError("the token endpoint answered without a token") from exc


def _reason(status: int, answer: bytes) -> str:
    try:
        fields = json.loads(answer)
        said = f"{fields['error']}: {str(fields['error_description']).splitlines()[0]}"
    except (ValueError, KeyError, TypeError, IndexError):
        said = "the token endpoint refused"
    return f"{status} {said}"[:_REASON_CHARS_MAX]
