"""Voyage: embeddings and rerank, by tokens."""

from msgspec import json

from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Route
from proxy.providers.endpoints import Endpoint
from proxy.providers.fields import as_dict, as_list
from proxy.providers.host import Host
from proxy.providers.openai import EMBEDDINGS, OpenAI
from proxy.providers.openai_meter import ChatReader
from proxy.providers.rerank import with_rerank

HOST = Host("voyage", "voyage", "https://api.voyageai.com", ("VOYAGE_API_KEY",), "/v1")

MULTIMODAL = Route("multimodalembeddings", "metered", "embeddings")
CONTEXTUALIZED = Route("contextualizedembeddings", "metered", "embeddings")


def inputs_facts(route: Route, path: str, body: bytes) -> Facts:
    """`inputs`: documents of chunks, or of parts, where only the window bounds what is no text."""
    parsed = rq.parse_body(body)
    inputs = parsed.get("inputs")
    if type(inputs) is not list:
        raise rq.bad("`inputs` is missing or not an array: send what is to be embedded")
    size = RequestSize(len(body), inputs=max(1, len(inputs)), generates=False)
    size.windowed = any(
        as_dict(part).get("type") != "text"
        for entry in inputs
        for part in as_list(as_dict(entry).get("content"))
    )
    model = rq.checked_model(parsed.get("model"))
    return Facts(route, model, False, size, parsed)


_INPUTS = Endpoint(inputs_facts, lambda facts: ChatReader())
_POSTS, _ENDPOINTS = with_rerank(
    (
        ("/embeddings", EMBEDDINGS),
        ("/multimodalembeddings", MULTIMODAL),
        ("/contextualizedembeddings", CONTEXTUALIZED),
    ),
    {MULTIMODAL.name: _INPUTS, CONTEXTUALIZED.name: _INPUTS},
)


class Voyage(OpenAI):
    """The `voyage` dialect."""

    name = "voyage"
    posts = _POSTS
    endpoints = _ENDPOINTS

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        error = as_dict(json.decode(super().error_body(refusal, request_id)))
        return json.encode({"detail": refusal.message, **error})
