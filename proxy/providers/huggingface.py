"""Hugging Face's router: OpenAI's wire format before other providers, each at its own price.

Which one serves a call stands behind the model (`org/model:novita`) or first in the path
(`/novita/v3/openai/chat/completions`).
"""

import re

from proxy.providers.base import Facts, Route
from proxy.providers.host import Host
from proxy.providers.openai import OpenAI

HOST = Host("huggingface", "huggingface", "https://router.huggingface.co", ("HF_TOKEN",), "/v1")

_match_place = re.compile(r"/+(?!v\d+/)([a-z0-9-]+)/+(?:.*/)?v\d+/").match


class HuggingFace(OpenAI):
    """The `huggingface` dialect."""

    name = "huggingface"
    usual_clamp_field = "max_tokens"

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        facts = super().facts(route, path, query, body)
        place = _match_place(path)
        if place is not None and ":" not in facts.model:
            facts.model = f"{facts.model}:{place[1]}"
        return facts
