"""Signatures as Amazon would check them."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError

from proxy import upstream_aws
from proxy.request_head import RequestHead
from proxy.upstream_aws import RENEW_S, VALID_S, AwsSource
from proxy.wire import AwsEntry

HOST = b"bedrock-runtime.us-east-1.amazonaws.com"
START = b"POST /model/us.amazon.nova-lite-v1%3A0/converse?a=1&b=%2F"
BODY = b'{"messages": []}'
KEYS = AwsEntry("us-east-1", access_key_id="AKID", secret_access_key="secret")
HEAD = RequestHead(
    [
        (b"content-type", b"application/json"),
        (b"user-agent", b"Boto3/1"),
        (b"x-amzn-bedrock-service-tier", b"flex"),
        (b"authorization", b"AWS4-HMAC-SHA256 Credential=CLIENT/..., Signature=1"),
        (b"x-amz-date", b"20000101T000000Z"),
        (b"x-amz-security-token", b"the client's"),
    ]
)


def signed(entry: AwsEntry, head: RequestHead = HEAD, body: bytes = BODY) -> dict[str, str]:
    lines = AwsSource(entry).fetch().signer.lines(START, HOST, head, body)
    return dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))


def recomputed(lines: dict[str, str], head: RequestHead, body: bytes) -> str:
    """The signature that the receiver of these lines computes."""
    sent = dict(line.decode().split(": ", 1) for line in head.lines) | lines
    names = lines["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name: sent[name] for name in names if name != "host"}
    target = START.decode().split(" ")[1]
    request = AWSRequest(
        method="POST", url=f"https://{HOST.decode()}{target}", data=body, headers=headers
    )
    request.context["timestamp"] = lines["x-amz-date"]
    auth = SigV4Auth(Credentials("AKID", "secret"), "bedrock", "us-east-1")
    return str(
        auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    )


@pytest.mark.parametrize("body", [b"", BODY, b"x" * 100_000])
@pytest.mark.parametrize("head", [HEAD, RequestHead([])], ids=["headers", "bare"])
def test_a_signature_holds(head: RequestHead, body: bytes) -> None:
    lines = signed(KEYS, head, body)
    assert set(lines) == {"authorization", "x-amz-date"}
    assert lines["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/us-east-1/bedrock/aws4_request" in lines["authorization"]
    assert lines["authorization"].endswith(f"Signature={recomputed(lines, head, body)}")
    assert lines["authorization"].endswith(f"Signature={recomputed(lines, head, body)}")
    assert not lines["authorization"].endswith(recomputed(lines, head, body + b" "))


def test_nothing_of_the_clients_own_signature_is_left() -> None:
    sent = b"\r\n".join(HEAD.lines)
    assert b"CLIENT" not in sent
    assert b"x-amz" not in sent.replace(b"x-amzn", b"")


def test_amazons_headers_and_the_content_type_are_signed() -> None:
    names = signed(KEYS)["authorization"].split("SignedHeaders=")[1].split(",")[0]
    assert names == "content-type;host;x-amz-date;x-amzn-bedrock-service-tier"


def test_temporary_keys_send_their_token() -> None:
    entry = AwsEntry("us-east-1", "bedrock-mantle", "AKID", "secret", "the token")
    lines = signed(entry)
    assert lines["x-amz-security-token"] == "the token"
    assert "x-amz-security-token" in lines["authorization"]
    assert "/bedrock-mantle/aws4_request" in lines["authorization"]


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return monkeypatch


def test_keys_of_the_environment(bare_environment: pytest.MonkeyPatch) -> None:
    bare_environment.setenv("AWS_ACCESS_KEY_ID", "FROM-ENV")
    bare_environment.setenv("AWS_SECRET_ACCESS_KEY", "s")
    source = AwsSource(AwsEntry("us-east-1"))
    fetched = source.fetch()
    assert (fetched.renew_s, fetched.valid_s) == (math.inf, math.inf)
    assert b"FROM-ENV" in fetched.signer.lines(START, HOST, HEAD, BODY)


def test_keys_of_a_profile(bare_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[team]\naws_access_key_id = OF-PROFILE\naws_secret_access_key = s\n"
    )
    source = AwsSource(AwsEntry("us-east-1", profile="team"))
    assert b"OF-PROFILE" in source.fetch().signer.lines(START, HOST, HEAD, BODY)


def test_no_keys_at_all(bare_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoCredentialsError):
        AwsSource(AwsEntry("us-east-1")).fetch()


def test_temporary_keys_are_asked_for_again(bare_environment: pytest.MonkeyPatch) -> None:
    def keys() -> dict[str, str]:
        until = datetime.now(UTC) + timedelta(hours=1)
        return {
            "access_key": "ROLE",
            "secret_key": "s",
            "token": "t",
            "expiry_time": until.isoformat(),
        }

    class Session:
        def __init__(self, profile: str | None) -> None:
            assert profile is None

        def get_credentials(self) -> Any:
            return RefreshableCredentials.create_from_metadata(keys(), keys, "assume-role")

    bare_environment.setattr(upstream_aws, "Session", Session)
    fetched = AwsSource(AwsEntry("us-east-1")).fetch()
    assert (fetched.renew_s, fetched.valid_s) == (RENEW_S, VALID_S)
    assert b"Credential=ROLE/" in fetched.signer.lines(START, HOST, HEAD, BODY)
