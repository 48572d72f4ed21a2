"""Groq: OpenAI's wire format; the last chunk of a stream tells its usage unasked, in `x_groq`."""

from proxy.providers.host import Host
from proxy.providers.openai import OpenAI

HOST = Host("groq", "groq", "https://api.groq.com", ("GROQ_API_KEY",), "/openai/v1")


class Groq(OpenAI):
    """The `groq` dialect."""

    name = "groq"
    asks_usage = False
