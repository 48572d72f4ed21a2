"""The dialects by name. A dialect that contradicts its own route table stops the start."""

from collections.abc import Callable, Mapping

from proxy.providers.anthropic import Anthropic
from proxy.providers.base import Dialect
from proxy.providers.bedrock import Bedrock
from proxy.providers.gemini import Gemini
from proxy.providers.openai import OpenAI
from proxy.providers.vertex import Vertex

_DIALECTS: dict[str, Callable[[str], Dialect]] = {
    cls.name: cls for cls in (OpenAI, Anthropic, Gemini, Bedrock, Vertex)
}
DIALECT_NAMES = tuple(sorted(_DIALECTS))


def dialect(name: str, clamp_field: str = "", models: Mapping[str, str] | None = None) -> Dialect:
    """A dialect for one provider. `models`: names of its own that stand for models.

    Raises KeyError for an unknown name (see DIALECT_NAMES).
    """
    if name == Bedrock.name:
        return Bedrock(clamp_field, models)
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
