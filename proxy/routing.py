"""Which provider a path belongs to: `/{provider}/...`, or a bare SDK path (no prefix)."""

from typing import NamedTuple

from proxy.errors import Refusal
from proxy.request_head import RequestHead

_BEDROCK_PREFIX = b"/model/"
_VERTEX_PREFIXES = tuple(
    version + resource
    for version in (b"", b"/v1", b"/v1beta1")
    for resource in (b"/projects/", b"/publishers/")
)
_GEMINI_PREFIXES = (b"/v1beta", b"/upload/", b"/v1/interactions", b"/v1/cachedContents")
_ANTHROPIC_PREFIXES = (b"/v1/messages", b"/v1/complete")
_DOUBLED = (b"/v1/v1/", b"/v2/v2/")  # the base URL of an SDK that adds the version itself has one
_CHAT = b"/v1/chat/completions"  # most calls: their path needs no further look
# A final `:verb` is Gemini's; other ids with a colon (fine-tuned OpenAI models) are not verbs.
_GEMINI_VERBS = frozenset(
    [
        b"generateContent",
        b"streamGenerateContent",
        b"embedContent",
        b"batchEmbedContents",
        b"asyncBatchEmbedContent",
        b"batchGenerateContent",
        b"countTokens",
        b"computeTokens",
        b"generateMessage",
        b"generateText",
        b"predict",
        b"predictLongRunning",
        b"rawPredict",
        b"streamRawPredict",
    ]
)


class Destination(NamedTuple):
    """A configured provider's name and the raw path below its prefix."""

    provider: str
    path: bytes


def destination(
    raw_path: bytes, query: bytes, head: RequestHead, providers: frozenset[bytes]
) -> Destination:
    """Find the provider. `providers` are the configured names.

    Raises Refusal `unknown_route` or `unknown_provider`, naming the prefixes that exist.
    """
    name, slash, rest = raw_path[1:].partition(b"/")
    if name in providers and not (name == b"openai" and rest.startswith(b"deployments/")):
        below = slash + rest
        if below.startswith(_DOUBLED):
            raise _doubled(below)
        return Destination(name.decode("ascii"), below)
    if raw_path.startswith(_DOUBLED):
        raise _doubled(raw_path)
    bare = _bare(raw_path, query, head, providers)
    if bare is None:
        raise Refusal(
            "unknown_route",
            f"No provider answers to this path. Put one of these in front: {_prefixes(providers)}.",
        )
    if bare not in providers:
        raise Refusal(
            "unknown_provider",
            f"This path belongs to the provider '{bare.decode()}', which is not configured. "
            f"Configured: {_prefixes(providers)}.",
        )
    return Destination(bare.decode("ascii"), raw_path)


def _doubled(path: bytes) -> Refusal:
    version = path[1:3].decode()
    return Refusal(
        "unknown_route",
        f"The path begins with /{version}/{version}/: this SDK adds /{version} itself, so leave it "
        "out of the base URL.",
    )


def _bare(
    path: bytes, query: bytes, head: RequestHead, providers: frozenset[bytes]
) -> bytes | None:
    """The provider whose SDKs send this path to a base URL without a prefix."""
    if path != _CHAT:
        named = _named_by(path, providers)
        if named is not None or not path.startswith(b"/v1/"):
            return named
    if b"anthropic-version" in head.noted:
        return b"anthropic"
    if b"x-goog-api-key" in head.noted:
        return b"gemini"
    if query.startswith(b"key=") or b"&key=" in query:
        return b"gemini"
    return b"openai"


def _named_by(path: bytes, providers: frozenset[bytes]) -> bytes | None:
    """The provider that a path alone tells; None: `/v1/` is several providers' prefix."""
    if path.startswith(b"/openai/deployments/"):
        return b"azure"
    if path.startswith(_ANTHROPIC_PREFIXES):
        return b"anthropic"
    if path.startswith(_BEDROCK_PREFIX) and b"bedrock" in providers:
        return b"bedrock"
    if path.startswith(_VERTEX_PREFIXES) and b"vertex" in providers:
        return b"vertex"
    if path.startswith(_GEMINI_PREFIXES) or path[path.rfind(b":") + 1 :] in _GEMINI_VERBS:
        return b"gemini"
    return None


def _prefixes(providers: frozenset[bytes]) -> str:
    return ", ".join(sorted(f"/{name.decode()}/" for name in providers)) or "none configured"
