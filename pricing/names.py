"""From the names providers and clients use to the names price tables use.

Only exact spellings count, each after a mechanical rewrite: a table is never searched by prefix,
since the next model of a family may cost ten times as much.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote

# What people call a provider -> its name in the tables.
PROVIDER_ALIASES = {
    "bedrock_converse": "bedrock",
    "cohere_chat": "cohere",
    "fireworks": "fireworks_ai",
    "google": "gemini",
    "grok": "xai",
    "together": "together_ai",
    "vertex": "vertex_ai",
    "vertexai": "vertex_ai",
    "voyageai": "voyage",
    "x-ai": "xai",
}

_RESOURCE = re.compile(
    r"(?:projects/[^/]+/locations/[^/]+/)?publishers/[^/]+/models/(.+)|models/(.+)"
)
_BEDROCK_ARN = re.compile(r"arn:aws[^:]*:bedrock:[^/]*:(?:foundation-model|inference-profile)/(.+)")
_FINE_TUNED = re.compile(r"ft:([^:]+):.*")


# Routes to other providers, and charges what they charge: tables have its prices by provider.
_ROUTER = "huggingface"

# Suffixes that tell versions of one model apart, digits as "d", with one of each. An entry lists
# in `versions` those that mean it too: without that they do not, since a version may cost more.
VERSION_SHAPES = {
    "-ddd": "-001",
    "-dddd": "-0125",
    "-dddddddd": "-20991231",
    "@dddddddd": "@20991231",
    "-dddd-dd-dd": "-2099-12-31",
}
_VERSION = re.compile(r"(.+?)([-@](?:\d{3}|\d{4}|\d{8}|\d{4}-\d\d-\d\d))")


def canonical_provider(provider: str) -> str:
    """The name of a provider in price tables."""
    return PROVIDER_ALIASES.get(provider, provider)


def provider_names(canonical: str) -> tuple[str, ...]:
    """All that a provider of price tables is called."""
    aliases = [alias for alias, name in PROVIDER_ALIASES.items() if name == canonical]
    routed = [_ROUTER] if canonical.startswith(f"{_ROUTER}_") else []
    return (canonical, *aliases, *routed)


def priced_as(provider: str, model: str) -> tuple[str, str]:
    """The provider and model by which tables have a price: that of `model:novita` at Hugging Face
    is one of `huggingface_novita`."""
    canonical = canonical_provider(provider)
    if canonical == _ROUTER:
        routed, _, place = model.rpartition(":")
        if routed:
            return f"{_ROUTER}_{place}", routed
    return canonical, model


def plain_model(model: str) -> str:
    """A model's name without percent-encoding and resource path: `models/x`,
    `publishers/google/models/x` and Bedrock's ARNs of x are x."""
    if "%" in model:
        model = unquote(model)
    found = _RESOURCE.fullmatch(model) or _BEDROCK_ARN.fullmatch(model)
    return found[found.lastindex or 0] if found else model


def spellings(model: str) -> Iterator[str]:
    """The names a table may know a model by, most specific first. A fine-tuned model is priced as
    `ft:base`, never as its base, which is cheaper."""
    yield model
    plain = plain_model(model)
    if plain != model:
        yield plain
    tuned = _FINE_TUNED.fullmatch(plain)
    if tuned:
        yield f"ft:{tuned[1]}"
    if plain != plain.lower():
        yield plain.lower()


def unversioned(model: str) -> tuple[str, str] | None:
    """A model's name without the suffix that names a version, and the shape of that suffix."""
    found = _VERSION.fullmatch(model)
    if found is None:
        return None
    return found[1], re.sub(r"\d", "d", found[2])
