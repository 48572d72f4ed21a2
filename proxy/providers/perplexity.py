"""Perplexity: OpenAI's wire format; its own models search on every call, and each chunk of a
stream carries the usage so far, and the cost."""

from proxy.providers import requests as rq
from proxy.providers.base import Facts, Route
from proxy.providers.host import Host
from proxy.providers.openai import CHAT, POSTS, OpenAI

HOST = Host(
    "perplexity",
    "perplexity",
    "https://api.perplexity.ai",
    ("PERPLEXITY_API_KEY", "PPLX_API_KEY"),
)

_RESEARCH_SEARCHES = 60  # billable searches held for one piece of research; it sets no limit


class Perplexity(OpenAI):
    """The `perplexity` dialect."""

    name = "perplexity"
    usual_clamp_field = "max_tokens"
    asks_usage = False
    posts = (("/async/chat/completions", Route("async.chat.completions", "unmetered")), *POSTS)

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        facts = super().facts(route, path, query, body)
        size = facts.size
        if route is CHAT and "sonar" in facts.model:
            research = "research" in facts.model
            size.tool_windows = rq.NO_OWN_BOUND
            size.web_searches = max(size.web_searches, _RESEARCH_SEARCHES if research else 1)
        return facts
