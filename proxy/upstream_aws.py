"""Signatures for Amazon's APIs (Signature Version 4), by botocore. Imported where a provider is
configured to sign, and only there."""

import math

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError
from botocore.session import Session

from proxy.request_head import RequestHead
from proxy.upstream_auth import Fetched
from proxy.wire import AwsEntry

# botocore renews temporary credentials while they are valid for ten minutes at least.
RENEW_S = 60.0
VALID_S = 300.0
_SIGNED = (b"content-type: ", b"x-amz")


class AwsSource:
    """Keys of the configuration, else those that botocore finds: variables, profiles, roles."""

    def __init__(self, entry: AwsEntry) -> None:
        self._entry = entry
        self._session = Session(profile=entry.profile or None)

    def fetch(self) -> Fetched:
        """Raises what botocore raises, NoCredentialsError where there are none."""
        entry = self._entry
        if entry.access_key_id:
            keys = ReadOnlyCredentials(
                entry.access_key_id, entry.secret_access_key, entry.session_token or None
            )
            return Fetched(AwsSigner(keys, entry), math.inf, math.inf)
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        signer = AwsSigner(credentials.get_frozen_credentials(), entry)
        if isinstance(credentials, RefreshableCredentials):
            return Fetched(signer, RENEW_S, VALID_S)
        return Fetched(signer, math.inf, math.inf)


class AwsSigner:
    """Signs requests with one set of keys."""

    def __init__(self, keys: ReadOnlyCredentials, entry: AwsEntry) -> None:
        self._auth = SigV4Auth(keys, entry.service, entry.region)

    def lines(self, start: bytes, host: bytes, head: RequestHead, body: bytes) -> bytes:
        """Signed are host, body, content type and Amazon's own headers, as they are sent."""
        method, _, target = start.decode("latin-1").partition(" ")
        headers: dict[str, str] = {}
        for line in head.lines:
            if line.startswith(_SIGNED):
                name, _, value = line.decode("latin-1").partition(": ")
                headers[name] = f"{headers[name]},{value}" if name in headers else value
        url = f"https://{host.decode('ascii')}{target}"
        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        self._auth.add_auth(request)
        return b"\r\n".join(
            f"{name.lower()}: {value}".encode("latin-1")
            for name, value in request.headers.items()
            if name not in headers
        )
