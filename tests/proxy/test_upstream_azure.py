"""Tokens of Microsoft Entra, from a token endpoint of the test."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from msgspec.structs import replace

from proxy.request_head import RequestHead
from proxy.upstream_auth import EARLY_S, Fetched
from proxy.upstream_azure import AzureSource, AzureTokenError
from proxy.wire import AzureEntry
from tests.replay import ReplayServer, Reply, json_reply


@pytest.fixture
def endpoint() -> Iterator[ReplayServer]:
    with ReplayServer() as server:
        yield server


@pytest.fixture
def entry(endpoint: ReplayServer) -> AzureEntry:
    return AzureEntry(f"{endpoint.url}/", "tenant/1", "app", "s3cret&", "", "https://s/.default")


def line(fetched: Fetched) -> bytes:
    return fetched.signer.lines(b"POST /", b"h", RequestHead([]), b"")


def test_an_application_with_a_secret(endpoint: ReplayServer, entry: AzureEntry) -> None:
    endpoint.reply(
        json_reply({"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ.one"}),
        json_reply({"token_type": "Bearer", "expires_in": "400", "access_token": "eyJ.two"}),
    )
    source = AzureSource(entry)
    first, second = source.fetch(), source.fetch()
    assert line(first) == b"authorization: Bearer eyJ.one"
    assert (first.renew_s, first.valid_s) == (3599 - EARLY_S, 3599 - 30)
    assert line(second).endswith(b"eyJ.two")
    assert second.renew_s == 200
    request = endpoint.requests[0]
    assert (request.method, request.target) == ("POST", "/tenant%2F1/oauth2/v2.0/token")
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["app"],
        "client_secret": ["s3cret&"],
        "scope": ["https://s/.default"],
    }


def test_a_workload_identity(endpoint: ReplayServer, entry: AzureEntry, tmp_path: Path) -> None:
    file = tmp_path / "token"
    source = AzureSource(replace(entry, client_secret="", federated_token_file=str(file)))
    for token in ("of.the.hour", "of.the.next"):
        file.write_text(f"{token}\n")
        endpoint.reply(json_reply({"expires_in": 3599, "access_token": "eyJ"}))
        source.fetch()
    first, second = (parse_qs(request.body.decode()) for request in endpoint.requests)
    assert first["client_assertion"] == ["of.the.hour"]
    assert second["client_assertion"] == ["of.the.next"]
    assert first["client_assertion_type"][0].endswith(":jwt-bearer")
    assert "client_secret" not in first


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            json_reply(
                {"error": "invalid_client", "error_description": "AADSTS7000215\r\nTrace"},
                status=401,
            ),
            r"^401 invalid_client: AADSTS7000215$",
        ),
        (Reply(503, body=b"<html>"), "^503 the token endpoint refused$"),
        (json_reply([], status=400), "^400 the token endpoint refused$"),
        (Reply(302, [("location", "http://127.0.0.1:9/")]), "^302 "),
        (json_reply({"expires_in": 3599}), "without a token"),
        (json_reply({"access_token": "t", "expires_in": "soon"}), "without a token"),
        (Reply(200, body=b"null"), "without a token"),
    ],
)
def test_no_token(endpoint: ReplayServer, entry: AzureEntry, reply: Reply, message: str) -> None:
    endpoint.reply(reply)
    with pytest.raises(AzureTokenError, match=message):
        AzureSource(entry).fetch()
    assert len(endpoint.requests) == 1


def test_nobody_there(entry: AzureEntry) -> None:
    with pytest.raises(OSError, match="refused"):
        AzureSource(replace(entry, authority="http://127.0.0.1:9")).fetch()


def test_a_file_that_is_not_there(entry: AzureEntry, tmp_path: Path) -> None:
    missing = replace(entry, client_secret="", federated_token_file=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        AzureSource(missing).fetch()
