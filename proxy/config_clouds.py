"""Providers inside a cloud: their address follows from where they are, and so do their prices."""

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from msgspec.structs import replace

from proxy.config import Azure, Provider
from proxy.config_reader import Problems

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
LOCATION_VARIABLES = ("GOOGLE_CLOUD_LOCATION",)
KEY_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"

# provider or dialect -> (address by region, service that signatures name)
_AMAZON = {
    "bedrock": ("https://bedrock-runtime.{}.amazonaws.com", "bedrock"),
    "bedrock_mantle": ("https://bedrock-mantle.{}.api.aws", "bedrock-mantle"),
}
_DIALECTS = {"bedrock": "bedrock", "bedrock_mantle": "openai", "vertex": "vertex"}
_PRICES = {"bedrock": "bedrock", "bedrock_mantle": "bedrock_mantle", "vertex": "vertex_ai"}
CLOUDS = frozenset(_DIALECTS)


def placed(name: str, provider: Provider, env: Mapping[str, str]) -> Provider:
    """A provider with what its place tells filled in, if it is in a cloud and has no address."""
    kind = name if name in CLOUDS else provider.dialect
    if kind not in CLOUDS:
        return provider
    provider = replace(
        provider,
        dialect=provider.dialect or _DIALECTS[kind],
        prices=provider.prices or _PRICES[kind],
    )
    if provider.base_url:
        return provider
    return _in_google(provider, env) if kind == "vertex" else _in_amazon(kind, provider, env)


def _in_amazon(kind: str, provider: Provider, env: Mapping[str, str]) -> Provider:
    address, service = _AMAZON[kind]
    aws = provider.aws
    region = aws.region or _first(env, REGION_VARIABLES)
    if not region:
        return provider
    own_keys = aws.access_key_id or aws.profile
    return replace(
        provider,
        base_url=address.format(region),
        api_key=provider.api_key or ("" if own_keys else env.get(KEY_VARIABLE, "")),
        aws=replace(aws, region=region, service=service),
    )


def _in_google(provider: Provider, env: Mapping[str, str]) -> Provider:
    location = provider.google.location or _first(env, LOCATION_VARIABLES) or "global"
    if location == "global":
        host = "aiplatform.googleapis.com"
    elif location in ("us", "eu"):  # multi-regions
        host = f"aiplatform.{location}.rep.googleapis.com"
    else:
        host = f"{location}-aiplatform.googleapis.com"
    return replace(
        provider,
        base_url=f"https://{host}",
        google=replace(provider.google, location=location),
    )


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((env[name] for name in names if env.get(name)), "")


def check_cloud(path: str, name: str, provider: Provider, problems: Problems) -> None:
    """What a provider in a cloud lacks."""
    aws, google = provider.aws, provider.google
    if not provider.base_url and (name in _AMAZON or provider.dialect in _AMAZON):
        variables = " or ".join(REGION_VARIABLES)
        problems.add_check(f"{path}.aws.region", f"missing, and {variables} is not set")
    if bool(aws.access_key_id) != bool(aws.secret_access_key):
        problems.add_check(f"{path}.aws", "access_key_id and secret_access_key go together")
    if not aws.region and (aws.access_key_id or aws.profile):
        problems.add_check(f"{path}.aws.region", "missing: requests are signed for a region")
    if not google.location and google.service_account_file:
        problems.add_check(f"{path}.google.location", "missing: tokens are used where it is set")
    _check_azure(f"{path}.azure", provider, problems)
    if provider.api_key:
        return
    for needed, extra, module in (
        (aws.region, "bedrock", "botocore"),
        (google.location, "vertex", "google.auth"),
    ):
        if needed and not _installed(module):
            problems.add_check(path, f"needs tollkeeper[{extra}]: {module} is not installed")


def _check_azure(path: str, provider: Provider, problems: Problems) -> None:
    azure = provider.azure
    if azure == Azure():
        return
    if not azure.tenant_id or not azure.client_id:
        problems.add_check(path, "tenant_id and client_id go together")
    if bool(azure.client_secret) == bool(azure.federated_token_file):
        problems.add_check(path, "expected either client_secret or federated_token_file")
    if provider.api_key:
        problems.add_check(f"{path}.tenant_id", "expected either tokens or an api_key")
    parts = urlsplit(azure.authority)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        problems.add_check(f"{path}.authority", "expected https://HOST: it is sent a secret")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False
