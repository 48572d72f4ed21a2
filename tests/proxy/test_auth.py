"""Where SDKs put keys (one row per SDK family), and what a wrong one is told."""

from hashlib import sha256

import pytest

from proxy.auth import Credentials, Keyring, credentials, without_key
from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.wire import KeyEntry

NOW_S = 1_700_000_000.0


def a_key(secret: bytes, name: str = "search", **changes: object) -> KeyEntry:
    fields: dict[str, object] = {
        "id": 1,
        "sha256": sha256(secret).hexdigest(),
        "name": name,
        "organization_id": 1,
        "organization": "acme",
        "team_id": 1,
        "team": "search",
    }
    return KeyEntry(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"authorization", b"Bearer tk-1")], b""),  # openai, anthropic 2.12
        ([(b"authorization", b"bearer  tk-1")], b""),
        ([(b"x-api-key", b"tk-1")], b""),  # anthropic 1.x, litellm, ai-sdk
        ([(b"api-key", b"tk-1")], b""),  # azure
        ([(b"x-goog-api-key", b"tk-1")], b""),  # google-genai
        ([], b"alt=sse&key=tk-1"),
        ([], b"key=tk%2D1"),
        ([(b"authorization", b"Bearer tk-1"), (b"x-api-key", b"tk-1")], b""),
    ],
)
def test_every_place_of_a_key(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    assert credentials(RequestHead(headers), query).secrets == [b"tk-1"]


def test_own_header_is_kept_apart() -> None:
    headers = [(b"authorization", b"Bearer sk-provider"), (b"x-tollkeeper-key", b"tk-1")]
    found = credentials(RequestHead(headers), b"")
    assert (found.own, found.secrets) == (b"tk-1", [b"sk-provider"])
    assert Keyring((a_key(b"tk-1"),)).authenticate(found, NOW_S).name == "search"


def test_other_schemes_are_not_keys() -> None:
    assert (
        credentials(
            RequestHead([(b"authorization", b"AWS4-HMAC-SHA256 Credential=x")]), b""
        ).secrets
        == []
    )


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"", b""),
        (b"key=x", b""),
        (b"alt=sse&key=x", b"alt=sse"),
        (b"b=2&key=x&a=1&key=y", b"b=2&a=1"),
        (b"monkey=1", b"monkey=1"),
        (b"api-version=2024&key2=%2F", b"api-version=2024&key2=%2F"),
    ],
)
def test_the_key_leaves_the_query_and_nothing_else_does(query: bytes, left: bytes) -> None:
    assert without_key(query) == left


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (a_key(b"other"), "invalid_api_key"),
        (a_key(b"tk-1", revoked=True), "key_revoked"),
        (a_key(b"tk-1", expires_at=int(NOW_S)), "key_expired"),
    ],
)
def test_refused_keys(key: KeyEntry, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        Keyring((key,)).authenticate(Credentials([b"tk-1"]), NOW_S)
    assert refused.value.code == code
    assert refused.value.status == 401
    assert refused.value.final


def test_a_key_is_good_until_it_expires() -> None:
    keyring = Keyring((a_key(b"tk-1", expires_at=int(NOW_S) + 1),))
    assert keyring.authenticate(Credentials([b"tk-1"]), NOW_S).name == "search"


def test_no_key_at_all() -> None:
    with pytest.raises(Refusal) as refused:
        Keyring(()).authenticate(Credentials([]), NOW_S)
    assert refused.value.code == "invalid_api_key"
    assert "No API key" in refused.value.message


def test_several_secrets_are_fine_if_one_is_ours() -> None:
    keyring = Keyring((a_key(b"tk-1"), a_key(b"tk-2", name="other", id=2)))
    assert keyring.authenticate(Credentials([b"sk-provider", b"tk-1"]), NOW_S).name == "search"
    with pytest.raises(Refusal) as refused:
        keyring.authenticate(Credentials([b"tk-2", b"tk-1"]), NOW_S)
    assert refused.value.code == "ambiguous_credentials"
    with pytest.raises(Refusal) as refused:
        keyring.authenticate(Credentials([b"no", b"neither"]), NOW_S)
    assert refused.value.code == "invalid_api_key"


def test_a_refusal_never_repeats_the_secret() -> None:
    with pytest.raises(Refusal) as refused:
        Keyring(()).authenticate(Credentials([b"sk-very-secret"]), NOW_S)
    assert "sk-very-secret" not in refused.value.message
