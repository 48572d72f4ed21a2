from pathlib import Path

import pytest

from proxy import config_clouds
from proxy.config import Config, ConfigError
from proxy.config_loader import load
from proxy.control.snapshots import build
from proxy.wire import AwsEntry, AzureEntry, GoogleEntry, PricesEntry, ProviderEntry

US = {"AWS_REGION": "us-east-1"}


def loaded(tmp_path: Path, providers: str, env: dict[str, str] | None = None) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(f"providers: {{{providers}}}\n")
    return load(path, env or {})


def problems(tmp_path: Path, providers: str, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, providers, env)
    return str(caught.value)


def entry(config: Config) -> ProviderEntry:
    """What a worker is told of the one provider."""
    snapshot = build(1, 1, ((), (), ()), PricesEntry("v", "p", "s"), config)
    (found,) = snapshot.providers
    return found


def test_bedrock_where_the_environment_says(tmp_path: Path) -> None:
    found = entry(loaded(tmp_path, "bedrock: {}", US))
    assert found.base_url == "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert (found.dialect, found.prices, found.region) == ("bedrock", "bedrock", "us-east-1")
    assert (found.api_key, found.aws) == ("", AwsEntry("us-east-1"))


def test_bedrock_with_a_key_of_its_api(tmp_path: Path) -> None:
    env = {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-key", "AWS_DEFAULT_REGION": "eu-west-1"}
    found = entry(loaded(tmp_path, "bedrock: {}", env))
    assert found.base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert (found.api_key, found.region, found.aws) == ("bedrock-key", "eu-west-1", None)


def test_declared_keys_come_before_the_environments(tmp_path: Path) -> None:
    declared = "bedrock: {aws: {region: us-west-2, access_key_id: AK, secret_access_key: SK}}"
    found = entry(loaded(tmp_path, declared, US | {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-key"}))
    assert found.api_key == ""
    assert found.aws == AwsEntry("us-west-2", "bedrock", "AK", "SK")


def test_several_regions_under_names_of_their_own(tmp_path: Path) -> None:
    declared = "frankfurt: {dialect: bedrock, aws: {region: eu-central-1}}"
    found = entry(loaded(tmp_path, declared))
    assert found.base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert (found.prices, found.region) == ("bedrock", "eu-central-1")


def test_bedrocks_openai_endpoint(tmp_path: Path) -> None:
    found = entry(loaded(tmp_path, "bedrock_mantle: {}", US))
    assert found.base_url == "https://bedrock-mantle.us-east-1.api.aws"
    assert (found.dialect, found.prices) == ("openai", "bedrock_mantle")
    assert found.aws == AwsEntry("us-east-1", "bedrock-mantle")


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("", "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
    ],
)
def test_vertex(tmp_path: Path, location: str, host: str) -> None:
    env = {"GOOGLE_CLOUD_LOCATION": location} if location else {}
    found = entry(loaded(tmp_path, "vertex: {}", env))
    assert found.base_url == f"https://{host}"
    assert (found.dialect, found.prices, found.google) == ("vertex", "vertex_ai", GoogleEntry())


def test_vertex_with_a_service_account_and_with_a_key(tmp_path: Path) -> None:
    declared = "vertex: {google: {location: us-east5, service_account_file: /a.json}}"
    assert entry(loaded(tmp_path, declared)).google == GoogleEntry("/a.json")
    express = entry(loaded(tmp_path, "vertex: {api_key: k, api_key_header: x-goog-api-key}"))
    assert (express.api_key, express.google) == ("k", None)


def test_another_address_gets_no_credential_of_the_cloud(tmp_path: Path) -> None:
    env = US | {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-key"}
    for name in ("bedrock", "vertex"):
        found = entry(loaded(tmp_path, f"{name}: {{base_url: 'http://127.0.0.1:9'}}", env))
        assert (found.api_key, found.aws, found.google) == ("", None, None)
        assert found.dialect == name
    signed = "bedrock: {base_url: 'http://127.0.0.1:9', aws: {region: us-east-1}}"
    assert entry(loaded(tmp_path, signed, env)).aws == AwsEntry("us-east-1")


def test_azure_with_tokens_of_entra(tmp_path: Path) -> None:
    declared = "azure: {base_url: 'https://r', azure: {tenant_id: t, client_id: c, %s}}"
    env = {"AZURE_OPENAI_API_KEY": "a key that is not used", "SECRET": "s"}
    found = entry(loaded(tmp_path, declared % 'client_secret: "${SECRET}"', env))
    assert (found.dialect, found.api_key) == ("azure", "")
    assert found.azure == AzureEntry(
        "https://login.microsoftonline.com",
        *("t", "c", "s", ""),
        "https://cognitiveservices.azure.com/.default",
    )
    found = entry(loaded(tmp_path, declared % "federated_token_file: /f, scope: s"))
    assert found.azure is not None
    assert (found.azure.federated_token_file, found.azure.scope) == ("/f", "s")
    assert entry(loaded(tmp_path, "azure: {base_url: 'https://r'}", env)).azure is None


def test_names_of_models(tmp_path: Path) -> None:
    found = entry(loaded(tmp_path, "bedrock: {models: {'arn:a/b': us.x}}", US))
    assert found.models == {"arn:a/b": "us.x"}


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("bedrock: {}", "aws.region: missing, and AWS_REGION or AWS_DEFAULT_REGION is not set"),
        ("b: {dialect: bedrock}", "aws.region: missing"),
        ("bedrock: {aws: {region: r, access_key_id: AK}}", "go together"),
        ("b: {dialect: bedrock, base_url: 'http://h', aws: {profile: p}}", "signed for a region"),
        (
            "v: {dialect: vertex, base_url: 'http://h', google: {service_account_file: f}}",
            "google.location: missing",
        ),
        ("model: {dialect: openai, base_url: 'http://h'}", "is a path of the proxy"),
        ("azure: {base_url: 'http://h', azure: {tenant_id: t, client_secret: s}}", "go together"),
        (
            "azure: {base_url: 'http://h', azure: {tenant_id: t, client_id: c}}",
            "expected either client_secret or federated_token_file",
        ),
        (
            "azure: {base_url: 'http://h', api_key: k, azure: "
            "{tenant_id: t, client_id: c, client_secret: s}}",
            "expected either tokens or an api_key",
        ),
        (
            "azure: {base_url: 'http://h', azure: "
            "{tenant_id: t, client_id: c, client_secret: s, authority: 'http://l'}}",
            "it is sent a secret",
        ),
    ],
)
def test_problems(tmp_path: Path, declared: str, problem: str) -> None:
    assert problem in problems(tmp_path, declared)


@pytest.mark.parametrize(
    "declared",
    [
        "bedrock: {aws: {region: r, secret_access_key: [hush]}}",
        "azure: {azure: {client_secret: [hush]}}",
    ],
)
def test_no_message_shows_a_secret(tmp_path: Path, declared: str) -> None:
    assert "hush" not in problems(tmp_path, declared)


@pytest.mark.parametrize(
    ("declared", "extra"), [("bedrock: {}", "bedrock"), ("vertex: {}", "vertex")]
)
def test_what_is_not_installed_is_said(
    tmp_path: Path, declared: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        if "." in name:
            raise ModuleNotFoundError

    monkeypatch.setattr(config_clouds, "find_spec", missing)
    assert f"needs tollkeeper[{extra}]" in problems(tmp_path, declared, US)
    name = declared.partition(":")[0]
    assert loaded(tmp_path, f"{name}: {{api_key: k}}", US)  # a key needs nothing


def test_personal_mode_takes_bedrock_by_its_key(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path), "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key"} | US
    assert list(load(None, env).providers) == ["bedrock"]
    del env["AWS_REGION"]
    assert not load(None, env).providers
