"""The official SDKs, pointed at the proxy: only base URL and key differ from a plain program."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxy.demo.scenario import HOUSE_RULES, Api, Caller

TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that Tollkeeper refused, as the SDK told its caller."""

    caller: Caller
    exception: str  # class, as the SDK names it
    code: str
    message: str


def _refused(caller: Caller, exc: Any) -> Refused:
    """Each SDK keeps the body's error in a place of its own."""
    name = f"{type(exc).__module__.partition('.')[0]}.{type(exc).__name__}"
    body = getattr(exc, "body", None) or getattr(exc, "details", None) or {}
    error = body.get("error", body)
    code = error.get("code") or error.get("type") or ""
    return Refused(caller, name, str(code), str(error.get("message") or exc))


class Sdks:
    """The SDKs, imported once; raises ImportError naming the one that lacks."""

    def __init__(self) -> None:
        import anthropic  # noqa: PLC0415 - together they take seconds to import
        import openai  # noqa: PLC0415
        from google import genai  # noqa: PLC0415
        from google.genai import errors  # noqa: PLC0415

        self._openai, self._anthropic, self._genai = openai, anthropic, genai
        self._refusals: Any = (openai.RateLimitError, anthropic.RateLimitError, errors.ClientError)

    def caller(self, base_url: str, caller: Caller) -> Callable[[str], Refused | None]:
        """A function that makes one call; None: it was answered."""
        call = self._call(base_url, caller)

        def once(prompt: str) -> Refused | None:
            try:
                call(prompt)
            except self._refusals as exc:
                # Google's errors have a `code` that is a status, OpenAI's one that is a word.
                status = getattr(exc, "status_code", None) or getattr(exc, "code", None)
                if status != TOO_MANY_REQUESTS:
                    raise
                return _refused(caller, exc)
            return None

        return once

    def _call(self, base_url: str, caller: Caller) -> Callable[[str], object]:
        make: dict[Api, Callable[[str, Caller], Callable[[str], object]]] = {
            "chat": self._chat,
            "responses": self._responses,
            "embeddings": self._embeddings,
            "messages": self._messages,
            "gemini": self._gemini,
        }
        return make[caller.api](base_url, caller)

    def _chat(self, base_url: str, caller: Caller) -> Callable[[str], object]:
        client = self._openai.OpenAI(base_url=f"{base_url}/v1", api_key=caller.secret)

        def call(prompt: str) -> object:
            chunks = client.chat.completions.create(
                model=caller.model,
                messages=[{"role": "user", "content": prompt}],
                max_completion_tokens=caller.output_limit,
                service_tier="default",
                stream=True,
            )
            return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]

        return call

    def _responses(self, base_url: str, caller: Caller) -> Callable[[str], object]:
        client = self._openai.OpenAI(base_url=f"{base_url}/v1", api_key=caller.secret)
        return lambda prompt: client.responses.create(
            model=caller.model, input=prompt, max_output_tokens=caller.output_limit
        )

    def _embeddings(self, base_url: str, caller: Caller) -> Callable[[str], object]:
        client = self._openai.OpenAI(base_url=f"{base_url}/v1", api_key=caller.secret)
        return lambda prompt: client.embeddings.create(
            model=caller.model, input=[f"{prompt} {part}" for part in range(20)]
        )

    def _messages(self, base_url: str, caller: Caller) -> Callable[[str], object]:
        client = self._anthropic.Anthropic(base_url=base_url, api_key=caller.secret)
        rules: Any = {
            "type": "text",
            "text": HOUSE_RULES,
            "cache_control": {"type": "ephemeral"},
        }

        def call(prompt: str) -> object:
            with client.messages.stream(
                model=caller.model,
                max_tokens=caller.output_limit or 1024,
                system=[rules],
                messages=[{"role": "user", "content": prompt}],
            ) as stream:
                return stream.get_final_text()

        return call

    def _gemini(self, base_url: str, caller: Caller) -> Callable[[str], object]:
        client = self._genai.Client(api_key=caller.secret, http_options={"base_url": base_url})

        def call(prompt: str) -> object:
            chunks = client.models.generate_content_stream(model=caller.model, contents=prompt)
            return [chunk.text for chunk in chunks]

        return call
