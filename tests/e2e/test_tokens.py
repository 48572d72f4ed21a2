"""A provider that is called with access tokens: fetched once, then carried by every call."""

from pathlib import Path

from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, error_of
from tests.harness import KEY
from tests.replay import ReplayServer, json_reply


def test_calls_carry_a_token_of_entra(tmp_path: Path) -> None:
    with ReplayServer() as authority, ReplayServer() as azure:
        authority.on("/token", json_reply({"expires_in": 3599, "access_token": "eyJ.app"}))
        entra = {"tenant_id": "t", "client_id": "app", "client_secret": "s3cret"}
        provider = {
            "dialect": "openai",
            "prices": "openai",
            "base_url": azure.url,
            "azure": entra | {"authority": authority.url},
        }
        with Stage(tmp_path, provider=azure, providers={"openai": provider}) as stage:
            for _ in range(3):
                stage.paid(CHAT)
            assert [request.header("authorization") for request in azure.requests] == [
                "Bearer eyJ.app"
            ] * 3
            assert all(KEY not in request.raw_head.decode() for request in azure.requests)
            assert len(stage.rows()) == 3
        assert [request.path for request in authority.requests] == ["/t/oauth2/v2.0/token"]


def test_no_token_is_a_refusal_that_says_why(tmp_path: Path) -> None:
    with ReplayServer() as authority, ReplayServer() as azure:
        said = {"error": "invalid_client", "error_description": "AADSTS7000215: wrong secret"}
        authority.on("/token", json_reply(said, status=401))
        entra = {"tenant_id": "t", "client_id": "app", "client_secret": "s3cret"}
        provider = {
            "dialect": "openai",
            "base_url": azure.url,
            "azure": entra | {"authority": authority.url},
        }
        with Stage(tmp_path, provider=azure, providers={"openai": provider}) as stage:
            answer = stage.call(CHAT)
            assert answer.status_code == 503
            assert error_of(answer)["code"] == "upstream_credentials"
            assert "AADSTS7000215" in answer.text
            assert "s3cret" not in answer.text
            assert not stage.rows()
        assert not azure.requests
