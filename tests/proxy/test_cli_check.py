import json
import os
from pathlib import Path

import httpx
import pytest
import respx

from tests.proxy.cli_runner import CONFIG, Tollkeeper


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    return Tollkeeper(tmp_path)


def findings(tollkeeper: Tollkeeper, *options: str, exit_code: int = 0) -> list[dict[str, str]]:
    result = tollkeeper.run("check", "--format", "json", *options)
    assert result.exit_code == exit_code, result.output
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def only(found: list[dict[str, str]], what: str) -> dict[str, str]:
    (finding,) = [finding for finding in found if finding["what"] == what]
    return finding


def test_before_the_first_serve(tollkeeper: Tollkeeper) -> None:
    found = findings(tollkeeper)
    assert only(found, "config")["detail"].startswith("3 providers, 1 organization, 2 teams, 1 key")
    assert only(found, "ledger")["status"] == "note"
    assert only(found, "journal")["status"] == "note"
    assert only(found, "prices")["status"] == "ok"
    assert not list(tollkeeper.directory.glob("*.db"))  # nothing is made by looking


def test_ledger_and_journal_are_opened(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("db", "upgrade")
    (tollkeeper.directory / "journal").mkdir()
    found = findings(tollkeeper)
    assert only(found, "ledger")["status"] == "ok"
    assert only(found, "journal")["detail"].startswith("journals: 0")


def test_a_foreign_database_is_a_finding(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("db", "upgrade")
    tollkeeper.ok("db", "downgrade", "base", "--yes")
    ledger = only(findings(tollkeeper, exit_code=1), "ledger")
    assert ledger["status"] == "fail"
    assert "tollkeeper db upgrade" in ledger["detail"]


def test_an_unknown_price_table_is_a_finding(tmp_path: Path) -> None:
    tollkeeper = Tollkeeper(tmp_path, CONFIG + "pricing: {table: nope}\n")
    assert only(findings(tollkeeper, exit_code=1), "prices")["status"] == "fail"


def test_providers_are_listed_without_their_keys(tollkeeper: Tollkeeper) -> None:
    details = {
        finding["name"]: finding["detail"]
        for finding in findings(tollkeeper)
        if finding["what"] == "provider"
    }
    assert "key set" in details["openai"]
    assert "the caller's own key" in details["anthropic"]
    assert "http://127.0.0.1:9/prefix" in details["gemini"]
    assert "upstream-key" not in tollkeeper.ok("check")


def test_a_key_over_plain_http_is_noted(tmp_path: Path) -> None:
    text = CONFIG.replace("http://127.0.0.1:9/prefix", "http://gateway.example")
    found = findings(Tollkeeper(tmp_path, text))
    (note,) = [f for f in found if f["what"] == "provider" and f["status"] == "note"]
    assert note["name"] == "gemini"
    assert "unencrypted" in note["detail"]


def test_routes_and_their_meters(tollkeeper: Tollkeeper, tmp_path: Path) -> None:
    routes = {f["name"]: f["detail"] for f in findings(tollkeeper) if f["what"] == "routes"}
    assert "chat.completions" in routes["openai: metered"]
    assert "messages.count_tokens" in routes["anthropic: free"]
    assert "uploads" in routes["openai: refused, 403"]
    by_path = findings(tollkeeper, "--routes")
    detail = {f["name"]: f["detail"] for f in by_path if f["what"] == "route"}
    assert detail["POST /openai/v1/chat/completions"] == "metered (chat.completions)"
    assert detail["WebSocket /openai/v1/realtime"] == "metered (realtime)"
    assert "WebSocket /anthropic/v1/realtime" not in detail
    allowed = CONFIG.replace("api_key: client}", "api_key: client, allow_unmetered: true}")
    found = findings(Tollkeeper(tmp_path, allowed))
    assert "anthropic: let through unmetered" in {f["name"] for f in found}


@respx.mock
def test_online(tollkeeper: Tollkeeper) -> None:
    openai = respx.get(
        "http://127.0.0.1:9/v1/models", headers={"authorization": "Bearer upstream-key"}
    )
    openai.respond(200)
    anthropic = respx.get(
        "http://127.0.0.1:9/v1/models", headers={"anthropic-version": "2023-06-01"}
    )
    anthropic.respond(401)
    gemini = respx.get("http://127.0.0.1:9/prefix/v1beta/models")
    gemini.side_effect = httpx.ConnectError("refused")
    found = findings(tollkeeper, "--online", exit_code=1)
    results = {f["name"]: f["status"] for f in found if f["what"] == "online"}
    assert results == {"openai": "ok", "anthropic": "ok", "gemini": "fail"}
    assert gemini.calls.last.request.headers["x-goog-api-key"] == "upstream-key"


@pytest.mark.parametrize(
    ("status", "expected"), [(200, "ok"), (401, "fail"), (404, "note"), (500, "fail")]
)
@respx.mock
def test_online_answers(tmp_path: Path, status: int, expected: str) -> None:
    text = "providers: {openai: {base_url: 'http://127.0.0.1:9', api_key: k}}\n"
    respx.get("http://127.0.0.1:9/v1/models").respond(status)
    found = findings(Tollkeeper(tmp_path, text), "--online", exit_code=int(expected == "fail"))
    assert only(found, "online")["status"] == expected


def test_personal_mode_without_any_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from proxy.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"XDG_STATE_HOME": str(tmp_path)})
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert "no provider's usual variable is set" in result.stdout


def test_how_requests_to_a_cloud_are_authorised(tmp_path: Path) -> None:
    clouds = """providers:
  bedrock: {aws: {region: us-east-1}}
  frankfurt: {dialect: bedrock, api_key: bedrock-key, aws: {region: eu-central-1}}
  vertex: {google: {location: us-east5}}
  azure:
    base_url: https://r.openai.azure.com
    azure: {tenant_id: t, client_id: app, client_secret: hush}
"""
    found = findings(Tollkeeper(tmp_path, clouds))
    details = {f["name"]: f["detail"] for f in found if f["what"] == "provider"}
    assert "requests signed for us-east-1" in details["bedrock"]
    assert "key set" in details["frankfurt"]
    assert "bedrock-key" not in details["frankfurt"]
    assert "https://us-east5-aiplatform.googleapis.com" in details["vertex"]
    assert "Google Cloud access tokens" in details["vertex"]
    assert "Entra access tokens of app" in details["azure"]
    assert "hush" not in str(found)
    assert "converse-stream" in str(found)
