"""The dialects and the hosts by name: a provider's file is listed here, and nowhere else. It is
loaded when the first provider that speaks it is set up: most deployments have two or three.

A dialect that contradicts its own route table is not set up.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import cast

from proxy.providers.base import Dialect
from proxy.providers.host import Host
from proxy.providers.hosts import COMPATIBLE_HOSTS

_DIALECTS = {  # file: class in it
    "anthropic": "Anthropic",
    "azure": "Azure",
    "bedrock": "Bedrock",
    "cohere": "Cohere",
    "gemini": "Gemini",
    "groq": "Groq",
    "huggingface": "HuggingFace",
    "mistral": "Mistral",
    "ollama": "Ollama",
    "openai": "OpenAI",
    "openrouter": "OpenRouter",
    "perplexity": "Perplexity",
    "together": "Together",
    "vertex": "Vertex",
    "voyage": "Voyage",
    "writer": "Writer",
    "xai": "XAI",
}
_PLACED = {"bedrock", "vertex"}  # addressed by their region, not by a name
DIALECT_NAMES = tuple(sorted(_DIALECTS))


class _Hosts(Mapping[str, Host]):
    """Sorted by name; the row of a provider with a file of its own is loaded with it."""

    def __init__(self) -> None:
        self._compatible = {host.name: host for host in COMPATIBLE_HOSTS}
        self._names = sorted({*self._compatible, *DIALECT_NAMES} - _PLACED)

    def __getitem__(self, name: str) -> Host:
        if name in self._compatible:
            return self._compatible[name]
        if name not in self._names:
            raise KeyError(name)
        return cast(Host, import_module(f"proxy.providers.{name}").HOST)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


HOSTS: Mapping[str, Host] = _Hosts()


def dialect(name: str, clamp_field: str = "", models: Mapping[str, str] | None = None) -> Dialect:
    """A dialect for one provider. `models`: names of its own that stand for models.

    Raises KeyError for an unknown name (see DIALECT_NAMES).
    """
    make = _loaded(name)
    return make(clamp_field, models) if name == "bedrock" else make(clamp_field)


@cache
def _loaded(name: str) -> Callable[..., Dialect]:
    class_name = _DIALECTS[name]
    make = cast(
        Callable[..., Dialect], getattr(import_module(f"proxy.providers.{name}"), class_name)
    )
    check(make(""))
    return make


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
