"""The packages, what each sends and which of its own errors it raises."""

from dataclasses import dataclass, field
from typing import Any

from tests.sdk import replies

# nano-USD per token, list prices: input, output
PRICES = {
    replies.CHAT_MODEL: (250, 2_000),
    replies.MESSAGES_MODEL: (3_000, 15_000),
    replies.GENERATE_MODEL: (300, 2_500),
}


@dataclass(frozen=True)
class Api:
    """One API of a provider, as every package calls it."""

    provider: str
    model: str
    route: str
    stream_route: str
    path: str
    stream_path: str

    @property
    def cost_nanousd(self) -> int:
        """Of one answer in `replies`."""
        input_price, output_price = PRICES[self.model]
        return input_price * replies.INPUT_TOKENS + output_price * replies.OUTPUT_TOKENS


def _one_path(provider: str, model: str, route: str, path: str) -> Api:
    return Api(provider, model, route, route, path, path)


CHAT = _one_path("openai", replies.CHAT_MODEL, "chat.completions", "/v1/chat/completions")
RESPONSES = _one_path("openai", replies.CHAT_MODEL, "responses", "/v1/responses")
MESSAGES = _one_path("anthropic", replies.MESSAGES_MODEL, "messages", "/v1/messages")
_GENERATE_PATH = f"/v1beta/models/{replies.GENERATE_MODEL}"
GENERATE = Api(
    "gemini",
    replies.GENERATE_MODEL,
    "generateContent",
    "streamGenerateContent",
    f"{_GENERATE_PATH}:generateContent",
    f"{_GENERATE_PATH}:streamGenerateContent?alt=sse",
)


@dataclass(frozen=True)
class Client:
    """One way to call one API. `errors`: its class for spent money, the same as 402, a wrong key;
    where a stream raises another, as "spent, streamed"."""

    driver: str
    package: str
    name: str  # in the driver
    api: Api
    suffix: str  # what its base URL ends in
    errors: dict[str, str] = field(default_factory=dict)
    spent_status: int = 429

    @property
    def id(self) -> str:
        return f"{self.driver.partition('.')[0].partition('_')[2]}-{self.name}"

    def error(self, kind: str, *, streamed: bool) -> str:
        return self.errors.get(f"{kind}, streamed" if streamed else kind, self.errors[kind])

    def job(self, work: str, origin: str, key: str, **changes: str) -> dict[str, str]:
        job = {
            "client": self.name,
            "work": work,
            "base": origin + self.suffix,
            "key": key,
            "model": self.api.model,
        }
        return job | changes


def _errors(spent: str, payment: str, key: str) -> dict[str, str]:
    return {"spent": spent, "payment": payment, "key": key}


def _same(name: str) -> dict[str, str]:
    return _errors(name, name, name)


def _of(package: str) -> dict[str, str]:
    names = ("RateLimitError", "APIStatusError", "AuthenticationError")
    return _errors(*(f"{package}.{name}" for name in names))


def _langchain() -> list[Client]:
    openai: dict[str, Any] = {"package": "langchain-openai", "suffix": "/v1"}
    openai["errors"] = _of("openai")
    common: dict[str, Any] = {"driver": "py_langchain.py"}
    return [
        Client(name="openai-chat", api=CHAT, **openai, **common),
        Client(name="openai-responses", api=RESPONSES, **openai, **common),
        Client(
            name="anthropic",
            package="langchain-anthropic",
            api=MESSAGES,
            suffix="",
            errors=_of("anthropic"),
            **common,
        ),
        Client(
            name="google",
            package="langchain-google-genai",
            api=GENERATE,
            suffix="",
            errors=_same("langchain_google_genai.ChatGoogleGenerativeAIError"),
            spent_status=402,
            **common,
        ),
    ]


def _litellm() -> list[Client]:
    common: dict[str, Any] = {"driver": "py_litellm.py", "package": "litellm"}
    limit, key = "litellm.RateLimitError", "litellm.AuthenticationError"
    openai = _errors(limit, "litellm.APIError", key)
    others = _errors(limit, "litellm.PaymentRequiredError", key)
    gemini = others | {"spent, streamed": "litellm.MidStreamFallbackError"}
    return [
        Client(name="openai", api=CHAT, suffix="/v1", errors=openai, **common),
        Client(name="anthropic", api=MESSAGES, suffix="", errors=others, **common),
        Client(name="gemini", api=GENERATE, suffix="/v1beta", errors=gemini, **common),
    ]


def _node() -> list[Client]:
    errors = _errors("RateLimitError", "APIError", "AuthenticationError")
    openai: dict[str, Any] = {
        "driver": "js_openai.mjs",
        "package": "openai",
        "suffix": "/v1",
        "errors": errors,
    }
    anthropic = Client("js_anthropic.mjs", "@anthropic-ai/sdk", "messages", MESSAGES, "", errors)
    genai = Client("js_genai.mjs", "@google/genai", "generate", GENERATE, "", _same("ApiError"))
    return [
        Client(name="chat", api=CHAT, **openai),
        Client(name="responses", api=RESPONSES, **openai),
        anthropic,
        genai,
    ]


def _ai_sdk() -> list[Client]:
    found = (
        ("openai", "openai", RESPONSES, "/v1"),
        ("openai", "openai-chat", CHAT, "/v1"),
        ("openai-compatible", "openai-compatible", CHAT, "/v1"),
        ("anthropic", "anthropic", MESSAGES, "/v1"),
        ("google", "google", GENERATE, "/v1beta"),
    )
    return [
        Client(
            "js_ai.mjs",
            f"@ai-sdk/{package}",
            name,
            api,
            suffix,
            _same("AI_APICallError"),
            spent_status=402,
        )
        for package, name, api, suffix in found
    ]


CLIENTS = (*_langchain(), *_litellm(), *_node(), *_ai_sdk())

_OPENAI_EMBEDDINGS = _one_path("openai", "text-embedding-3-small", "embeddings", "/v1/embeddings")
_GEMINI_EMBEDDINGS = _one_path(
    "gemini",
    "gemini-embedding-001",
    "batchEmbedContents",
    "/v1beta/models/gemini-embedding-001:batchEmbedContents",
)
EMBEDDERS = (
    Client("py_langchain.py", "langchain-openai", "openai-embeddings", _OPENAI_EMBEDDINGS, "/v1"),
    Client(
        "py_langchain.py", "langchain-google-genai", "google-embeddings", _GEMINI_EMBEDDINGS, ""
    ),
    Client("py_litellm.py", "litellm", "openai-embeddings", _OPENAI_EMBEDDINGS, "/v1"),
    Client("js_openai.mjs", "openai", "embeddings", _OPENAI_EMBEDDINGS, "/v1"),
    Client("js_genai.mjs", "@google/genai", "embeddings", _GEMINI_EMBEDDINGS, ""),
    Client("js_ai.mjs", "@ai-sdk/openai", "openai-embeddings", _OPENAI_EMBEDDINGS, "/v1"),
)
