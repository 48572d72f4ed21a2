"""Rerank at hosts that bill it by tokens: Voyage, OpenRouter, Together.

The query is read once for each document, so its bytes count as often.
"""

from collections.abc import Mapping

from pricing.usage import RequestSize
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Route
from proxy.providers.endpoints import Endpoint
from proxy.providers.fields import as_text
from proxy.providers.openai_meter import ChatReader

RERANK = Route("rerank", "metered", "rerank")


def rerank_facts(route: Route, path: str, body: bytes) -> Facts:
    """A query and its documents."""
    parsed = rq.parse_body(body)
    documents = parsed.get("documents")
    if type(documents) is not list:
        raise rq.bad("`documents` is missing or not an array: send the documents as an array")
    query = len(as_text(parsed.get("query")).encode("utf-8", "replace"))
    read = len(body) + query * len(documents)
    size = RequestSize(read, inputs=max(1, len(documents)), generates=False)
    model = rq.checked_model(parsed.get("model"))
    return Facts(route, model, False, size, parsed)


ENDPOINT = Endpoint(rerank_facts, lambda facts: ChatReader())


def with_rerank(
    posts: rq.Posts, endpoints: Mapping[str, Endpoint]
) -> tuple[rq.Posts, Mapping[str, Endpoint]]:
    """A route table and its endpoints, with rerank metered."""
    others = tuple(post for post in posts if post[0] != "/rerank")
    return (*others, ("/rerank", RERANK)), {**endpoints, RERANK.name: ENDPOINT}
