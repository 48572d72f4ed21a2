"""The dialects and the hosts by name: a provider's file is listed here, and nowhere else.

A dialect that contradicts its own route table stops the start.
"""

from collections.abc import Callable, Mapping

from proxy.providers import (
    anthropic,
    azure,
    bedrock,
    cohere,
    gemini,
    groq,
    mistral,
    ollama,
    openai,
    openrouter,
    perplexity,
    together,
    vertex,
    voyage,
    writer,
    xai,
)
from proxy.providers.base import Dialect
from proxy.providers.hosts import COMPATIBLE_HOSTS

_DIALECTS: dict[str, Callable[[str], Dialect]] = {
    "anthropic": anthropic.Anthropic,
    "azure": azure.Azure,
    "bedrock": bedrock.Bedrock,
    "cohere": cohere.Cohere,
    "gemini": gemini.Gemini,
    "groq": groq.Groq,
    "mistral": mistral.Mistral,
    "ollama": ollama.Ollama,
    "openai": openai.OpenAI,
    "openrouter": openrouter.OpenRouter,
    "perplexity": perplexity.Perplexity,
    "together": together.Together,
    "vertex": vertex.Vertex,
    "voyage": voyage.Voyage,
    "writer": writer.Writer,
    "xai": xai.XAI,
}
DIALECT_NAMES = tuple(sorted(_DIALECTS))

HOSTS = {
    host.name: host
    for host in sorted(
        (
            anthropic.HOST,
            azure.HOST,
            cohere.HOST,
            gemini.HOST,
            groq.HOST,
            mistral.HOST,
            ollama.HOST,
            openai.HOST,
            openrouter.HOST,
            perplexity.HOST,
            together.HOST,
            voyage.HOST,
            writer.HOST,
            xai.HOST,
            *COMPATIBLE_HOSTS,
        )
    )
}


def dialect(name: str, clamp_field: str = "", models: Mapping[str, str] | None = None) -> Dialect:
    """A dialect for one provider. `models`: names of its own that stand for models.

    Raises KeyError for an unknown name (see DIALECT_NAMES).
    """
    if name == bedrock.Bedrock.name:
        return bedrock.Bedrock(clamp_field, models)
    return _DIALECTS[name](clamp_field)


def check(candidate: Dialect) -> None:
    """Raises AssertionError where a dialect's routes and its table differ, or where it lets a
    write it does not know pass."""
    for method, path, route in candidate.routes():
        found = candidate.route(method, path)
        assert found == route, f"{candidate.name}: {method} {path} is {found}, not {route}"
    for method in ("POST", "PUT", "PATCH"):
        route_of_unknown = candidate.route(method, "/not/in/the/table")
        assert route_of_unknown is not None
        assert route_of_unknown.kind == "unmetered"


for _name in DIALECT_NAMES:
    check(dialect(_name))
