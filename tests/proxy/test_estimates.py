import json

import pytest

from pricing.usage import Usage
from proxy.estimates import TOKENS_PER_IMAGE, cut_to, estimated_usage
from proxy.providers.base import Facts, Reading
from proxy.providers.openai import OpenAI

OPENAI = OpenAI()


def facts_of(body: dict[str, object], path: str = "/v1/chat/completions") -> Facts:
    route = OPENAI.route("POST", path)
    assert route is not None
    return OPENAI.facts(route, path, b"", json.dumps(body).encode())


def a_chat(content: object) -> Facts:
    return facts_of({"model": "m" * 4, "messages": [{"role": "user", "content": content}]})


def test_text_counts_and_media_does_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9999}}
    text = {"type": "text", "text": "x" * 400}
    usage = estimated_usage(a_chat([text, image]), Reading(None, delivered_output_tokens=7))
    assert usage.output_tokens == 7
    assert 100 + TOKENS_PER_IMAGE <= usage.input_tokens <= 120 + TOKENS_PER_IMAGE


def test_without_an_answer_only_the_input_counts() -> None:
    usage = estimated_usage(a_chat("x" * 400), None)
    assert 100 <= usage.input_tokens <= 110
    assert usage.output_tokens == 0


def test_token_ids_are_tokens() -> None:
    facts = facts_of({"model": "m", "input": [[1, 2, 3], [4, 5]]}, "/v1/embeddings")
    usage = estimated_usage(facts, Reading(None, delivered_output_tokens=99))
    assert usage == Usage(6)  # one for the model's name


@pytest.mark.parametrize(("delivered", "output"), [(3, 5), (9, 9)])
def test_a_partial_report_is_a_lower_bound(delivered: int, output: int) -> None:
    partial = Usage(1000, 5, cache_read_tokens=900)
    reading = Reading(partial, partial=True, delivered_output_tokens=delivered)
    assert estimated_usage(a_chat("x"), reading) == Usage(1000, output, cache_read_tokens=900)
    assert partial.output_tokens == 5


def test_an_estimate_is_cut_to_the_ceiling() -> None:
    usage = Usage(500, 50, 400, reasoning_tokens=40, units={"web_search": 9, "other": 1})
    usage.passes = (("", Usage(1)),)
    bound = Usage(300, 20, units={"web_search": 4})
    assert cut_to(usage, bound) == Usage(300, 20, 300, reasoning_tokens=20, units={"web_search": 4})
    usage.units = {"web_search@high": 9, "images@hd": 2}
    assert cut_to(usage, bound).units == {"web_search@high": 4}
    usage.units = {"milliseconds": 70_500}
    assert cut_to(usage, Usage(units={"seconds": 60})).units == {"milliseconds": 60_000}
    assert cut_to(usage, bound).units == {}
    assert cut_to(Usage(1, 2), bound) == Usage(1, 2)
