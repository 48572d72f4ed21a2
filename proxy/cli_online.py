"""One free call to each provider: is it there, and does it take the key?"""

import asyncio
from collections.abc import Mapping

import httpx

from proxy.config import Provider
from proxy.providers.registry import HOSTS, dialect

TIMEOUT_S = 15

_MODELS = {
    "anthropic": "/v1/models",
    "bedrock": "/foundation-models",  # is at another host: 404 is an answer
    "cohere": "/v1/models",
    "gemini": "/v1beta/models",
    "vertex": "/v1beta1/publishers/google/models",
}
_HEADERS = {"anthropic": {"anthropic-version": "2023-06-01"}}

Result = tuple[str, str, str]  # provider, status, detail


async def probe(providers: Mapping[str, Provider]) -> list[Result]:
    """Ask every provider for its models, all at once."""
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        calls = (_probe(client, name, provider) for name, provider in providers.items())
        return list(await asyncio.gather(*calls))


async def _probe(client: httpx.AsyncClient, name: str, provider: Provider) -> Result:
    path = _models_path(name, provider.dialect)
    headers = _HEADERS.get(provider.dialect, {})
    key_header = provider.api_key_header or dialect(provider.dialect).credential_header
    own_key = provider.api_key and provider.api_key != "client"
    if own_key:
        bearer = "Bearer " if key_header.lower() == "authorization" else ""
        headers = headers | {key_header: bearer + provider.api_key}
    try:
        reply = await client.get(provider.base_url + path, headers=headers)
    except httpx.HTTPError as exc:
        return name, "fail", f"unreachable: {exc or type(exc).__name__}"
    milliseconds = round(reply.elapsed.total_seconds() * 1000)
    return name, *_judge(reply.status_code, bool(own_key), milliseconds)


def _models_path(name: str, dialect_name: str) -> str:
    """Where a provider lists its models, below its base URL."""
    host = HOSTS.get(name)
    usual = (host.sdk_path if host else "/v1") + "/models"
    return _MODELS.get(dialect_name, usual)


def _judge(status: int, own_key: bool, milliseconds: int) -> tuple[str, str]:
    took = f"answered {status} in {milliseconds} ms"
    if status < 300:
        return "ok", took
    if status in (400, 401, 403):  # Gemini says 400 to a wrong key
        return (
            ("fail", f"{took}: the key is refused") if own_key else ("ok", f"{took}, no key sent")
        )
    if status < 500:
        return "note", f"{took}: reachable, but it has no list of models there"
    return "fail", took
