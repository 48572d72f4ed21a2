"""Every known provider, configured by its name alone: where a call goes, with which credential, and
what it costs, worked by hand from the provider's list prices.

Each call asks with 2,000 tokens, of which the reply says nothing was cached, and gets 300.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
import pytest

from proxy.config_clouds import CLOUDS
from proxy.config_loader import load
from proxy.providers.registry import HOSTS
from tests.harness import KEY, Running
from tests.replay import ReplayServer, json_reply

IN, OUT = 2_000, 300
HELLO = [{"role": "user", "content": "Who pays?"}]
CHAT = {"usage": {"prompt_tokens": IN, "completion_tokens": OUT, "total_tokens": IN + OUT}}
MESSAGE = {"type": "message", "usage": {"input_tokens": IN, "output_tokens": OUT}}
GENERATED = {
    "usageMetadata": {
        "promptTokenCount": IN,
        "candidatesTokenCount": OUT,
        "totalTokenCount": IN + OUT,
    }
}
CONVERSED = {"usage": {"inputTokens": IN, "outputTokens": OUT, "totalTokens": IN + OUT}}


def nano(usd_in: float, usd_out: float) -> int:
    """A call at prices in USD per million tokens, in nano-USD."""
    return round(IN * usd_in * 1_000) + round(OUT * usd_out * 1_000)


@dataclass(frozen=True)
class Case:
    """`path`: below the prefix, as the SDK at its documented base URL sends it. `priced`: what the
    row names as the model's price."""

    path: str
    model: str
    cost: int
    reply: dict[str, Any] = field(default_factory=lambda: CHAT)
    body: dict[str, Any] = field(default_factory=lambda: {"messages": HELLO})
    header: str = "authorization"
    usage: tuple[int, int] = (IN, OUT)


def chat(model: str, cost: int, path: str = "/v1/chat/completions", **more: Any) -> Case:
    return Case(path, model, cost, **more)


CONTENTS = {"contents": [{"parts": [{"text": "Who pays?"}]}]}
CASES = {
    "anthropic": Case(  # $3 and $15
        "/v1/messages",
        "claude-sonnet-4-5",
        nano(3, 15),
        MESSAGE,
        {"messages": HELLO, "max_tokens": 500},
        "x-api-key",
    ),
    "azure": chat(  # $2 and $8
        "gpt-4.1", nano(2, 8), "/openai/deployments/mine/chat/completions", header="api-key"
    ),
    "bedrock": Case(  # $0.06 and $0.24
        "/model/amazon.nova-lite-v1%3A0/converse",
        "amazon.nova-lite-v1:0",
        nano(0.06, 0.24),
        CONVERSED,
        {"messages": [{"role": "user", "content": [{"text": "Who pays?"}]}]},
    ),
    "cerebras": chat("gpt-oss-120b", nano(0.35, 0.75)),
    "cohere": Case(  # $2.50 and $10, of the units billed
        "/v2/chat",
        "command-a-03-2025",
        nano(2.5, 10),
        {"usage": {"billed_units": {"input_tokens": IN, "output_tokens": OUT}}},
    ),
    "crusoe": chat("meta-llama/Llama-3.3-70B-Instruct", nano(0.2, 0.2)),
    "deepseek": chat("deepseek-chat", nano(0.28, 0.42), "/chat/completions"),
    "gemini": Case(  # $0.30 and $2.50
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "gemini-2.5-flash",
        nano(0.3, 2.5),
        GENERATED,
        CONTENTS,
        "x-goog-api-key",
    ),
    "groq": chat("openai/gpt-oss-120b", nano(0.15, 0.6), "/openai/v1/chat/completions"),
    "huggingface": chat("openai/gpt-oss-120b:cerebras", nano(0.35, 0.75)),
    "lmstudio": chat("qwen3-8b", 0),
    "mistral": chat("mistral-large-latest", nano(0.5, 1.5)),
    "ollama": Case(
        "/api/chat", "llama3", 0, {"done": True, "prompt_eval_count": IN, "eval_count": OUT}
    ),
    "openai": chat("gpt-4.1-mini", nano(0.4, 1.6)),
    "openrouter": chat("anthropic/claude-haiku-4.5", nano(1, 5), "/api/v1/chat/completions"),
    "perplexity": chat(  # $3 and $15, and $0.006 for a search of little context
        "sonar-pro",
        nano(3, 15) + 6_000_000,
        "/chat/completions",
        reply={"usage": CHAT["usage"] | {"search_context_size": "low"}},
    ),
    "snowflake": chat("llama3.1-405b", nano(1.2, 1.2), "/api/v2/cortex/v1/chat/completions"),
    "together": chat(  # $1.04 both ways, at half price by an overlay for this name of it
        "meta-llama/Llama-3.3-70B-Instruct-Turbo", nano(0.52, 0.52)
    ),
    "vertex": Case(  # $0.30 and $2.50
        "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent",
        "gemini-2.5-flash",
        nano(0.3, 2.5),
        GENERATED,
        CONTENTS,
    ),
    "vllm": chat("mine", 0),
    "voyage": Case(  # $0.06
        "/v1/embeddings",
        "voyage-3.5",
        nano(0.06, 0),
        {"data": [], "usage": {"total_tokens": IN}},
        {"input": ["Who pays?"]},
        usage=(IN, 0),
    ),
    "writer": chat("palmyra-x5", nano(0.6, 6), "/v1/chat"),  # as configured: no table has it
    "xai": chat("grok-4-0709", nano(3, 15)),
    "zai": chat("glm-4.6", nano(0.6, 2.2), "/api/paas/v4/chat/completions"),
}


class Open:
    """A running Tollkeeper that knows of each provider its name, an address and a key."""

    def __init__(self, running: Running, provider: ReplayServer, http: httpx.Client) -> None:
        self.running, self.provider, self.http = running, provider, http


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    directory = tmp_path_factory.mktemp("everywhere")
    own = {"azure": {"models": {"mine": "gpt-4.1"}}, "vertex": {"google": {"location": "global"}}}
    with ReplayServer() as provider:
        overlay = {
            "provider": "writer",
            "model": "palmyra-x5",
            "prices": {"input_cost_per_token": "0.0000006", "output_cost_per_token": "0.000006"},
            "max_input_tokens": 1_000_000,
            "max_output_tokens": 8_192,
        }
        settings = {
            "database": {"url": f"sqlite+aiosqlite:///{directory}/ledger.db"},
            "journal": {"dir": "journal", "flush_interval_ms": 20},
            "log": {"calls": False},
            "providers": {
                name: {"base_url": provider.url, "api_key": f"sk-{name}"} | own.get(name, {})
                for name in CASES
            },
            "organizations": {
                "acme": {
                    "teams": {
                        "search": {
                            "keys": [{"name": "k", "key_sha256": sha256(KEY.encode()).hexdigest()}]
                        }
                    }
                }
            },
            "pricing": {"overlays": [overlay, {"provider": "together", "discount_percent": "50"}]},
        }
        path = directory / "config.yaml"
        path.write_text(json.dumps(settings))
        with Running(load(path, {})) as running, httpx.Client(base_url=running.url) as http:
            yield Open(running, provider, http)


def test_every_known_provider_is_called_here() -> None:
    assert {*HOSTS, "bedrock", "vertex"} == set(CASES)
    assert {"bedrock", "vertex"} <= CLOUDS


@pytest.mark.parametrize("name", CASES)
def test_a_call(everywhere: Open, name: str) -> None:
    case = CASES[name]
    everywhere.provider.reset()
    everywhere.provider.reply(json_reply(case.reply))
    answer = everywhere.http.post(
        f"/{name}{case.path}",
        json={"model": case.model} | case.body,
        headers={"authorization": f"Bearer {KEY}"},
    )
    assert (answer.status_code, answer.json()) == (200, case.reply), answer.text
    (sent,) = everywhere.provider.requests
    assert sent.target == case.path
    credential = sent.header(case.header) or ""
    assert credential.removeprefix("Bearer ") == f"sk-{name}"
    assert KEY not in sent.raw_head.decode()
    row = max(everywhere.running.rows(), key=lambda row: row["request_id"])
    assert (row["provider"], row["ending"], row["usage_source"]) == (name, "complete", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == case.usage
    assert round(float(row["cost_usd"]) * 10**9) == case.cost <= float(row["hold_usd"]) * 10**9


def test_the_books_are_right(everywhere: Open) -> None:
    assert everywhere.running.findings() == []
