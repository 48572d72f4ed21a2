"""The status of a spent budget is one that the client does not try again."""

import pytest

from proxy.providers.registry import dialect
from proxy.refuse import spent_status
from proxy.request_head import RequestHead


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        (b"ai/6.0.326 ai-sdk/provider-utils/4.0.64 runtime/node.js/v20", 402),
        (b"google-genai-sdk/2.34.0 langchain-google-genai/4.4.2-ChatGoogleGenerativeAI", 402),
        (b"OpenAI/Python 2.54.0", 429),
        (b"my-ai-sdks/1", 429),
        (b"", 429),
    ],
)
def test_clients_that_repeat_a_429_get_a_402(agent: bytes, status: int) -> None:
    head = RequestHead([(b"accept", b"ai-sdk/1"), (b"user-agent", agent)])
    assert spent_status(dialect("openai"), head) == status


def test_a_dialect_has_its_own() -> None:
    assert spent_status(dialect("cohere"), RequestHead([])) == 402
