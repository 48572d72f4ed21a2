"""litellm.completion and litellm.embedding, with api_base."""

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its import would fetch a newer one

import litellm
from drive import PROMPT, QUESTION, TOOL_DESCRIPTION, serve, weather

litellm.suppress_debug_info = True
litellm.telemetry = False
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": TOOL_DESCRIPTION,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
}


class LiteLlm:
    """`prefix` chooses the API."""

    prefix = ""

    def __init__(self, base: str, key: str, model: str) -> None:
        self._how = {"model": f"{self.prefix}/{model}", "api_base": base, "api_key": key}

    def ask(self) -> str:
        messages = [{"role": "user", "content": PROMPT}]
        return str(litellm.completion(messages=messages, **self._how).choices[0].message.content)

    def stream(self) -> list[Any]:
        messages = [{"role": "user", "content": PROMPT}]
        chunks = litellm.completion(messages=messages, stream=True, **self._how)
        return [chunk.choices[0].delta.model_dump() for chunk in chunks]

    def text_streamed(self) -> str:
        return "".join(delta["content"] or "" for delta in self.stream())

    def tool(self) -> str:
        return self._conversation(lambda messages: self._asked(messages, stream=False))

    def tool_streamed(self) -> str:
        return self._conversation(
            lambda messages: litellm.stream_chunk_builder(
                list(self._asked(messages, stream=True)), messages=messages
            )
        )

    def _asked(self, messages: list[Any], **options: Any) -> Any:
        return litellm.completion(messages=messages, tools=[TOOL], **options, **self._how)

    def _conversation(self, ask: Any) -> str:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        asked = ask(messages).choices[0].message
        (call,) = asked.tool_calls
        arguments = json.loads(call.function.arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": weather(**arguments)}
        return str(ask([*messages, asked.model_dump(), result]).choices[0].message.content)

    def embed(self) -> list[float]:
        return list(litellm.embedding(input=[PROMPT], **self._how).data[0]["embedding"])


class OpenAI(LiteLlm):
    prefix = "openai"


class Anthropic(LiteLlm):
    prefix = "anthropic"


class Gemini(LiteLlm):
    prefix = "gemini"


serve({"openai": OpenAI, "openai-embeddings": OpenAI, "anthropic": Anthropic, "gemini": Gemini})
