"""Azure OpenAI and Azure AI Foundry: OpenAI's wire format below `/openai/deployments/NAME`,
`/openai/v1` and `/models`.

The key goes into `api-key`; a token of Entra is a bearer, fetched by `upstream_azure` or the
caller's own, with `api_key_header: authorization`.
A deployment is called by its own name: the configuration's `models` says which model it is, and
the reply, where it names the model, has the last word on the price.
"""

from proxy.providers import requests as rq
from proxy.providers.base import Facts, Route
from proxy.providers.host import Host
from proxy.providers.openai import CHAT, OpenAI, model_in_path

HOST = Host("azure", "azure", "", ("AZURE_OPENAI_API_KEY",), "/openai/v1")


class Azure(OpenAI):
    """The `azure` dialect."""

    name = "azure"
    credential_header = "api-key"

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        facts = super().facts(route, path, query, body)
        if "/deployments/" in path:  # where the body's `model` counts for nothing
            facts.model = rq.checked_model(model_in_path(path) or facts.model)
        if route is CHAT and rq.may_name(body, b"data_sources") and "data_sources" in facts.body:
            facts.size.tool_windows = rq.NO_OWN_BOUND  # reads a search index first
        return facts
