"""Prefixes and bare SDK paths; the table is the specification."""

import pytest

from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.routing import destination

ALL = frozenset([b"openai", b"anthropic", b"gemini", b"azure", b"groq", b"ollama"])
ANTHROPIC = [(b"anthropic-version", b"2026-10-21")]
GOOG = [(b"x-goog-api-key", b"k")]


@pytest.mark.parametrize(
    ("path", "query", "headers", "provider", "below"),
    [
        # a prefix wins
        (b"/openai/v1/chat/completions", b"", [], "openai", b"/v1/chat/completions"),
        (b"/anthropic/v1/messages", b"beta=true", [], "anthropic", b"/v1/messages"),
        (b"/groq/openai/v1/chat/completions", b"", [], "groq", b"/openai/v1/chat/completions"),
        (b"/openai/v1/models/a%2Fb", b"", ANTHROPIC, "openai", b"/v1/models/a%2Fb"),
        (
            b"/gemini/v1beta/models/m:generateContent",
            b"",
            [],
            "gemini",
            b"/v1beta/models/m:generateContent",
        ),
        (b"/openai", b"", [], "openai", b""),
        # bare paths
        (b"/v1/chat/completions", b"", [], "openai", b"/v1/chat/completions"),
        (b"/v1/messages", b"", [], "anthropic", b"/v1/messages"),
        (b"/v1/messages/count_tokens", b"", [], "anthropic", b"/v1/messages/count_tokens"),
        (b"/v1/complete", b"", [], "anthropic", b"/v1/complete"),
        (
            b"/v1/models/gemini-3-pro:generateContent",
            b"",
            GOOG,
            "gemini",
            b"/v1/models/gemini-3-pro:generateContent",
        ),
        (
            b"/v1beta/models/m:streamGenerateContent",
            b"alt=sse",
            [],
            "gemini",
            b"/v1beta/models/m:streamGenerateContent",
        ),
        (
            b"/v1beta1/publishers/google/models/m:generateContent",
            b"",
            [],
            "gemini",
            b"/v1beta1/publishers/google/models/m:generateContent",
        ),
        (b"/models/m:generateContent", b"", [], "gemini", b"/models/m:generateContent"),
        (b"/upload/v1beta/files", b"", [], "gemini", b"/upload/v1beta/files"),
        (b"/v1/interactions", b"", [], "gemini", b"/v1/interactions"),
        (b"/v1/cachedContents", b"", [], "gemini", b"/v1/cachedContents"),
        (b"/v1/models", b"", [], "openai", b"/v1/models"),
        (b"/v1/models", b"", ANTHROPIC, "anthropic", b"/v1/models"),
        (b"/v1/models", b"", GOOG, "gemini", b"/v1/models"),
        (b"/v1/models", b"pageSize=5&key=k", [], "gemini", b"/v1/models"),
        (b"/v1/files", b"", ANTHROPIC, "anthropic", b"/v1/files"),
        (
            b"/v1/models/ft:gpt-4o-mini:acme::abc",
            b"",
            [],
            "openai",
            b"/v1/models/ft:gpt-4o-mini:acme::abc",
        ),
        (
            b"/openai/deployments/d/chat/completions",
            b"api-version=1",
            [],
            "azure",
            b"/openai/deployments/d/chat/completions",
        ),
    ],
)
def test_destination(
    path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], provider: str, below: bytes
) -> None:
    found = destination(path, query, RequestHead(headers), ALL)
    assert (found.provider, found.path) == (provider, below)


@pytest.mark.parametrize(
    ("path", "provider"),
    [
        (b"/model/us.amazon.nova-lite-v1%3A0/converse", "bedrock"),
        (b"/projects/p/locations/l/publishers/anthropic/models/m:rawPredict", "vertex"),
        (b"/v1/projects/p/locations/l/publishers/google/models/m:generateContent", "vertex"),
        (b"/v1beta1/publishers/google/models/m:generateContent", "vertex"),
        (b"/v1beta/models/m:generateContent", "gemini"),
    ],
)
def test_bare_paths_of_the_clouds(path: bytes, provider: str) -> None:
    found = destination(path, b"", RequestHead([]), ALL | {b"bedrock", b"vertex"})
    assert (found.provider, found.path) == (provider, path)


@pytest.mark.parametrize("path", [b"/", b"/v2/chat", b"/chat/completions", b"/model/x/converse"])
def test_unknown_paths_name_the_prefixes(path: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        destination(path, b"", RequestHead([]), ALL)
    assert refused.value.code == "unknown_route"
    assert "/anthropic/, /azure/, /gemini/" in refused.value.message


def test_a_bare_path_of_a_provider_that_is_not_configured() -> None:
    with pytest.raises(Refusal) as refused:
        destination(b"/v1/messages", b"", RequestHead([]), frozenset([b"openai"]))
    assert refused.value.code == "unknown_provider"
    assert "'anthropic'" in refused.value.message
    assert "/openai/" in refused.value.message


@pytest.mark.parametrize(
    "path", [b"/v1/v1/messages", b"/anthropic/v1/v1/messages", b"/groq/v2/v2/x"]
)
def test_a_base_url_with_a_version_too_many(path: bytes) -> None:
    with pytest.raises(Refusal, match="leave it out of the base URL") as refused:
        destination(path, b"", RequestHead(ANTHROPIC), ALL)
    assert refused.value.code == "unknown_route"
