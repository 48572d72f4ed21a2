"""LangChain's chat models and embeddings."""

from typing import Any

from drive import PROMPT, QUESTION, serve, weather
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


class Chat:
    """`model` is a LangChain chat model with the defaults of its package."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def ask(self) -> str:
        return str(self._model.invoke(PROMPT).text)

    def stream(self) -> list[Any]:
        return [chunk.model_dump(exclude={"id"}) for chunk in self._model.stream(PROMPT)]

    def text_streamed(self) -> str:
        return "".join(chunk.text for chunk in self._model.stream(PROMPT))

    def tool(self) -> str:
        return self._conversation(lambda model, messages: model.invoke(messages))

    def tool_streamed(self) -> str:
        return self._conversation(_summed)

    def _conversation(self, ask: Any) -> str:
        model = self._model.bind_tools([weather])
        messages: list[Any] = [HumanMessage(QUESTION)]
        asked = ask(model, messages)
        (call,) = asked.tool_calls
        assert call["name"] == "weather"
        messages += [asked, ToolMessage(weather(**call["args"]), tool_call_id=call["id"])]
        return str(ask(model, messages).text)


def _summed(model: Any, messages: list[Any]) -> AIMessageChunk:
    first, *others = model.stream(messages)
    for chunk in others:
        first += chunk
    return first


class Embeddings:
    def __init__(self, model: Any) -> None:
        self._model = model

    def embed(self) -> list[float]:
        return list(self._model.embed_query(PROMPT))


def openai_chat(base: str, key: str, model: str) -> Chat:
    return Chat(ChatOpenAI(model=model, base_url=base, api_key=key))


def openai_responses(base: str, key: str, model: str) -> Chat:
    return Chat(ChatOpenAI(model=model, base_url=base, api_key=key, use_responses_api=True))


def openai_embeddings(base: str, key: str, model: str) -> Embeddings:
    # the length check would fetch a tokeniser
    return Embeddings(
        OpenAIEmbeddings(model=model, base_url=base, api_key=key, check_embedding_ctx_length=False)
    )


def anthropic(base: str, key: str, model: str) -> Chat:
    return Chat(ChatAnthropic(model_name=model, base_url=base, api_key=key))


def google(base: str, key: str, model: str) -> Chat:
    return Chat(ChatGoogleGenerativeAI(model=model, base_url=base, api_key=key))


def google_embeddings(base: str, key: str, model: str) -> Embeddings:
    return Embeddings(GoogleGenerativeAIEmbeddings(model=model, base_url=base, api_key=key))


serve(
    {
        "openai-chat": openai_chat,
        "openai-responses": openai_responses,
        "openai-embeddings": openai_embeddings,
        "anthropic": anthropic,
        "google": google,
        "google-embeddings": google_embeddings,
    }
)
