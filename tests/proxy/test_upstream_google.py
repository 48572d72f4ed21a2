"""Access tokens: from a service account, from a token endpoint of the test."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google.auth
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.exceptions import GoogleAuthError

from proxy.request_head import RequestHead
from proxy.upstream_auth import EARLY_S
from proxy.upstream_google import GoogleSource
from proxy.wire import GoogleEntry
from tests.replay import ReplayServer, json_reply


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def account(directory: Path, token_uri: str, private_key: str) -> GoogleEntry:
    path = directory / "account.json"
    fields = {
        "type": "service_account",
        "client_email": "tollkeeper@p.iam.gserviceaccount.com",
        "private_key": private_key,
        "private_key_id": "1",
        "project_id": "p",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(fields))
    return GoogleEntry(str(path))


def test_a_service_account(tmp_path: Path, private_key: str) -> None:
    with ReplayServer() as endpoint:
        endpoint.reply(
            json_reply({"access_token": "ya29.one", "expires_in": 3600}),
            json_reply({"access_token": "ya29.two", "expires_in": 400}),
        )
        source = GoogleSource(account(tmp_path, endpoint.url + "/token", private_key))
        first, second = source.fetch(), source.fetch()
    assert first.signer.lines(b"", b"", RequestHead([]), b"") == b"authorization: Bearer ya29.one"
    assert first.valid_s == pytest.approx(3600 - 30, abs=5)
    assert first.renew_s == pytest.approx(3600 - EARLY_S, abs=5)
    assert second.signer.lines(b"", b"", RequestHead([]), b"").endswith(b"ya29.two")
    assert second.renew_s == pytest.approx(200, abs=5)
    assert b"cloud-platform" not in endpoint.requests[0].raw_head
    assert endpoint.requests[0].path == "/token"


def test_an_endpoint_that_refuses_raises(tmp_path: Path, private_key: str) -> None:
    with ReplayServer() as endpoint:
        endpoint.reply(json_reply({"error": "invalid_grant"}, status=400))
        source = GoogleSource(account(tmp_path, endpoint.url, private_key))
        with pytest.raises(GoogleAuthError, match="invalid_grant"):
            source.fetch()


class Default:
    """Application default credentials."""

    token = ""
    expiry: datetime | None = None

    def __init__(self, expiry: datetime | None) -> None:
        self._next = expiry

    def refresh(self, request: Any) -> None:
        self.token, self.expiry = "ya29.default", self._next


@pytest.mark.parametrize("hours", [None, 1])
def test_the_application_default(monkeypatch: pytest.MonkeyPatch, hours: int | None) -> None:
    expiry = None
    if hours:
        expiry = (datetime.now(UTC) + timedelta(hours=hours)).replace(tzinfo=None)
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Default(expiry), "p"))
    fetched = GoogleSource(GoogleEntry()).fetch()
    assert fetched.signer.lines(b"", b"", RequestHead([]), b"").endswith(b"ya29.default")
    assert 0 < fetched.renew_s < fetched.valid_s
