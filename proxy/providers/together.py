"""Together: OpenAI's wire format, and rerank by tokens."""

from proxy.providers.host import Host
from proxy.providers.openai import OpenAI
from proxy.providers.rerank import with_rerank

HOST = Host("together", "together", "https://api.together.xyz", ("TOGETHER_API_KEY",), "/v1")


class Together(OpenAI):
    """The `together` dialect."""

    name = "together"
    usual_clamp_field = "max_tokens"
    posts, endpoints = with_rerank(OpenAI.posts, OpenAI.endpoints)
