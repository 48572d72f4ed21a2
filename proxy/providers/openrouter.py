"""OpenRouter: OpenAI's wire format before many providers; the reply carries what it cost."""

from proxy.providers import requests as rq
from proxy.providers.base import Facts, Route
from proxy.providers.host import Host
from proxy.providers.openai import OpenAI
from proxy.providers.rerank import with_rerank

HOST = Host("openrouter", "openrouter", "https://openrouter.ai", ("OPENROUTER_API_KEY",), "/api/v1")

FALLBACKS_MAX = 16


class OpenRouter(OpenAI):
    """The `openrouter` dialect."""

    name = "openrouter"
    usual_clamp_field = "max_tokens"
    asks_usage = False
    posts, endpoints = with_rerank(OpenAI.posts, OpenAI.endpoints)

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        facts = super().facts(route, path, query, body)
        others = facts.body.get("models") if rq.may_name(body, b"models") else None
        if others is not None:
            facts.fallbacks = _fallbacks(others)
            facts.clampable = False
        return facts


def _fallbacks(models: object) -> tuple[str, ...]:
    if type(models) is not list or len(models) > FALLBACKS_MAX:
        raise rq.bad(f"`models` must be an array of at most {FALLBACKS_MAX} models")
    return tuple(rq.checked_model(model) for model in models)
