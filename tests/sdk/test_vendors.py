"""Groq, Mistral and Cohere with their own SDKs: only the base URL and the key are changed."""

from decimal import Decimal
from importlib.util import find_spec, module_from_spec
from typing import Any

import cohere
import groq
import httpx
import pytest
from cohere.core.api_error import ApiError
from mistralai.client import Mistral

from tests.replay import json_reply, sse_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness
from tests.sdk.sdks import CONVERSATION
from tests.sdk.vendors import COUNTS, DROPPED, VENDORS, Vendor

KEY = KEYS["rich"]


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.provider)
def vendor(request: pytest.FixtureRequest, tollkeeper: Harness) -> Vendor:
    chosen: Vendor = request.param
    chosen.play(tollkeeper.provider)
    return chosen


def base_of(vendor: Vendor, tollkeeper: Harness) -> str:
    return f"{tollkeeper.url}/{vendor.provider}"


def test_a_call(tollkeeper: Harness, vendor: Vendor) -> None:
    assert vendor.ask(base_of(vendor, tollkeeper), KEY) == replies.TEXT
    (request,) = tollkeeper.provider.requests
    assert request.target == vendor.path
    assert request.header("authorization") == f"Bearer sk-upstream-{vendor.provider}"
    assert KEY not in request.raw_head.decode()
    (row,) = tollkeeper.rows()
    assert (row["provider"], row["model"]) == (vendor.provider, vendor.model)
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == (
        replies.INPUT_TOKENS,
        replies.OUTPUT_TOKENS,
    )
    assert float(row["cost_usd"]) > 0


def test_a_stream(tollkeeper: Harness, vendor: Vendor) -> None:
    direct: list[Any] = []
    through: list[Any] = []
    vendor.stream(tollkeeper.provider.url, KEY, direct)
    vendor.stream(base_of(vendor, tollkeeper), KEY, through)
    assert through == direct
    assert len(direct) >= len(replies.PIECES)
    assert tollkeeper.provider.requests[1].body == tollkeeper.provider.requests[0].body
    (row,) = tollkeeper.rows()
    assert (row["stream"], row["ending"], row["usage_source"]) == (True, "complete", "reported")
    assert row["output_tokens"] == replies.OUTPUT_TOKENS


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("key", "kind"), [(KEYS["spent"], "spent"), ("tk-wrong", "key")])
def test_a_refusal_is_final_at_once(
    tollkeeper: Harness, vendor: Vendor, key: str, kind: str, streamed: bool
) -> None:
    base, seen = base_of(vendor, tollkeeper), list[Any]()
    with pytest.raises(vendor.errors[kind]) as caught:
        vendor.stream(base, key, seen) if streamed else vendor.ask(base, key)
    error: Any = caught.value
    assert error.status_code == (vendor.spent_status if kind == "spent" else 401)
    assert ("budget" if kind == "spent" else "Tollkeeper key") in str(error)
    assert len(tollkeeper.received) == 1
    assert not seen
    assert not tollkeeper.provider.requests
    assert not tollkeeper.rows()


def test_a_stream_that_breaks(tollkeeper: Harness, vendor: Vendor, override: Any) -> None:
    events = vendor.events()
    override(vendor.path, sse_reply(events, reset_after=sum(map(len, events[:3]))))
    seen: list[Any] = []
    with pytest.raises(DROPPED):
        vendor.stream(base_of(vendor, tollkeeper), KEY, seen)
    assert len(tollkeeper.received) == len(tollkeeper.provider.requests) == 1
    (row,) = tollkeeper.rows()
    assert (row["ending"], row["usage_source"]) == ("upstream_broken", "estimated")
    assert 0 < float(row["cost_usd"]) <= float(row["hold_usd"])


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.provider)
def test_a_stream_we_end_is_an_error(impatient: Harness, override: Any, vendor: Vendor) -> None:
    events = vendor.events()
    override(vendor.path, sse_reply(events, stall_after=sum(map(len, events[:3]))))
    seen: list[Any] = []
    with pytest.raises(vendor.errors["ours"]) as caught:
        vendor.stream(f"{impatient.url}/{vendor.provider}", KEY, seen)
    assert ("timeout" in str(caught.value)) is (vendor.errors["ours"] is not DROPPED)
    assert len(seen) >= 1
    assert len(impatient.received) == 1
    impatient.provider.wait(lambda server: server.requests[0].hung_up)
    (row,) = impatient.rows()
    assert row["usage_source"] == "estimated"


def test_an_error_of_the_provider(tollkeeper: Harness, vendor: Vendor, override: Any) -> None:
    override(vendor.path, json_reply({"message": "no such voice"}, status=422))
    with pytest.raises(Exception, match="no such voice"):
        vendor.ask(base_of(vendor, tollkeeper), KEY)
    (row,) = tollkeeper.rows()
    assert (row["http_status"], float(row["cost_usd"])) == (422, 0)


# --- addresses -----------------------------------------------------------------------------


def imported_now(name: str) -> Any:
    """A module as it is when it is imported: Cohere's SDK reads the environment then."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_addresses_from_the_environment(
    tollkeeper: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = {vendor.provider: vendor for vendor in VENDORS}
    for name, prefix in (("groq", "GROQ"), ("cohere", "CO")):
        by_name[name].play(tollkeeper.provider)
        address = "CO_API_URL" if name == "cohere" else "GROQ_BASE_URL"
        monkeypatch.setenv(address, f"{tollkeeper.url}/{name}")
        monkeypatch.setenv(f"{prefix}_API_KEY", KEY)
    with (
        groq.Groq() as client,
        imported_now("cohere.client_v2").ClientV2(httpx_client=httpx.Client()) as co,
    ):
        client.chat.completions.create(model=by_name["groq"].model, messages=CONVERSATION)
        co.chat(model=by_name["cohere"].model, messages=CONVERSATION)
    assert [row["provider"] for row in tollkeeper.rows()] == ["groq", "cohere"]


def test_groqs_sdk_at_the_bare_address_is_taken_for_openai(tollkeeper: Harness) -> None:
    """Its path is our prefix and OpenAI's: the refusal names the provider."""
    with (
        groq.Groq(base_url=tollkeeper.url, api_key=KEY) as client,
        pytest.raises(groq.PermissionDeniedError, match="under provider 'openai'"),
    ):
        client.chat.completions.create(model="openai/gpt-oss-120b", messages=CONVERSATION)
    assert not tollkeeper.provider.requests


def test_cohere_with_a_version_too_many(tollkeeper: Harness) -> None:
    base = f"{tollkeeper.url}/cohere/v2"
    with (
        cohere.ClientV2(api_key=KEY, base_url=base, httpx_client=httpx.Client()) as client,
        pytest.raises(ApiError, match="leave it out of the base URL") as caught,
    ):
        client.chat(model="command-a-03-2025", messages=CONVERSATION)
    assert caught.value.status_code == 404


# --- their other APIs ----------------------------------------------------------------------


def only_row(tollkeeper: Harness, path: str, route: str, cost_nanousd: int) -> None:
    (request,) = tollkeeper.provider.requests
    (row,) = tollkeeper.rows()
    assert (request.target, row["route"], row["usage_source"]) == (path, route, "reported")
    assert Decimal(row["cost_usd"]).scaleb(9) == cost_nanousd <= Decimal(row["hold_usd"]).scaleb(9)


def test_coheres_first_version(tollkeeper: Harness, override: Any) -> None:
    """$2.50 and $10 per million tokens billed."""
    reply = {"text": replies.TEXT, "generation_id": "g", "meta": {"billed_units": COUNTS}}
    override("/v1/chat", json_reply(reply))
    base = f"{tollkeeper.url}/cohere"
    with cohere.Client(api_key=KEY, base_url=base, httpx_client=httpx.Client()) as client:
        assert client.chat(model="command-a-03-2025", message="hi").text == replies.TEXT
    cost = replies.INPUT_TOKENS * 2_500 + replies.OUTPUT_TOKENS * 10_000
    only_row(tollkeeper, "/v1/chat", "chat", cost)


def test_cohere_embeds_and_reranks(tollkeeper: Harness, override: Any) -> None:
    """$0.12 per million tokens; $2 per thousand searches."""
    meta = {"billed_units": {"input_tokens": 21}}
    override("/v2/embed", json_reply({"id": "e", "embeddings": {}, "texts": ["hi"], "meta": meta}))
    found = [{"index": 0, "relevance_score": 0.5}]
    meta = {"billed_units": {"search_units": 1}}
    override("/v2/rerank", json_reply({"id": "r", "results": found, "meta": meta}))
    base = f"{tollkeeper.url}/cohere"
    with cohere.ClientV2(api_key=KEY, base_url=base, httpx_client=httpx.Client()) as client:
        client.embed(
            model="embed-v4.0", texts=["hi"], input_type="classification", embedding_types=["float"]
        )
        only_row(tollkeeper, "/v2/embed", "embed", 21 * 120)
        client.rerank(model="rerank-v3.5", query="q", documents=["d"])
    assert Decimal(tollkeeper.rows()[1]["cost_usd"]) == Decimal("0.002")


def test_mistral_embeds_and_reads(tollkeeper: Harness, override: Any) -> None:
    """$0.10 per million tokens; $4 per thousand pages."""
    usage = {"prompt_tokens": 21, "total_tokens": 21, "completion_tokens": 0}
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    vectors = {"id": "v", "object": "list", "model": "mistral-embed", "data": [vector]}
    override("/v1/embeddings", json_reply(vectors | {"usage": usage}))
    pages = {"pages": [], "model": "mistral-ocr-latest", "usage_info": {"pages_processed": 3}}
    override("/v1/ocr", json_reply(pages))
    document = {"type": "document_url", "document_url": "data:application/pdf;base64,JVBERi0="}
    with Mistral(api_key=KEY, server_url=f"{tollkeeper.url}/mistral") as client:
        client.embeddings.create(model="mistral-embed", inputs=["hi"])
        only_row(tollkeeper, "/v1/embeddings", "embeddings", 21 * 100)
        client.ocr.process(model="mistral-ocr-latest", document=document)
    assert Decimal(tollkeeper.rows()[1]["cost_usd"]) == Decimal("0.012")
