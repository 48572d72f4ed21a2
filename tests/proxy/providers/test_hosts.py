"""Every known provider: its row is complete, documented, and what differs there is respected."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.config_clouds import CLOUDS
from proxy.errors import Refusal
from proxy.providers.base import Dialect, Facts
from proxy.providers.host import Host
from proxy.providers.registry import DIALECT_NAMES, HOSTS, dialect

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs/configuration.md").read_text()


def facts_of(wire: Dialect, path: str, body: dict[str, Any]) -> Facts:
    route = wire.route("POST", path)
    assert route is not None
    assert route.kind == "metered", route
    return wire.facts(route, path, b"", json.dumps(body).encode())


def a_chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize("host", HOSTS.values(), ids=lambda host: host.name)
def test_a_row(host: Host) -> None:
    assert HOSTS[host.name] is host
    assert host.dialect in DIALECT_NAMES
    parts = urlsplit(host.base_url)
    assert not host.base_url or (parts.hostname and not parts.path and not parts.query)
    assert host.base_url or host.variables
    local = parts.hostname == "127.0.0.1"
    assert (parts.scheme == "https") is not local or not host.base_url
    assert (host.prices == "free") is local
    assert host.sdk_path == "" or re.fullmatch(r"(/[a-z0-9]+)+", host.sdk_path)


@pytest.mark.parametrize("host", HOSTS.values(), ids=lambda host: host.name)
def test_a_row_is_documented(host: Host) -> None:
    table = DOCS.partition("### Known providers")[2]
    row = re.search(rf"^\| `{host.name}` \|.*$", table, re.M)
    assert row
    cells = [cell.strip() for cell in row[0].strip("|").split("|")]
    assert cells[1].startswith(f"`{host.dialect}`")
    assert re.findall(r"`(.+?)`", cells[2]) == ([host.base_url] if host.base_url else [])
    assert re.findall(r"`(.+?)`", cells[3]) == list(host.variables)
    assert cells[4] == f"`/{host.name}{host.sdk_path}`"


def test_every_dialect_has_a_host_of_its_name() -> None:
    placed = CLOUDS  # addressed by their region, not by a name
    assert set(DIALECT_NAMES) <= {host.name for host in HOSTS.values()} | placed


# --- azure ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/openai/deployments/mine/chat/completions", "mine"),
        ("//openai/deployments/mine/chat/completions", "mine"),
        ("/openai/deployments/a%2Fb/chat/completions", "a/b"),
        ("/openai/v1/chat/completions", "m"),
        ("/models/chat/completions", "m"),
    ],
)
def test_azures_deployment_is_the_one_in_the_path(path: str, model: str) -> None:
    assert facts_of(dialect("azure"), path, a_chat()).model == model


def test_azure_reads_a_search_index() -> None:
    path = "/openai/deployments/mine/extensions/chat/completions"
    assert facts_of(dialect("azure"), path, a_chat(data_sources=[{}])).size.tool_windows == -1
    assert facts_of(dialect("azure"), path, a_chat()).size.tool_windows == 0


# --- hosts that tell usage unasked -----------------------------------------------------------


@pytest.mark.parametrize("name", ["groq", "openrouter", "perplexity"])
def test_streams_that_tell_their_usage_are_not_asked(name: str) -> None:
    wire = dialect(name)
    facts = facts_of(wire, "/chat/completions", a_chat(stream=True))
    body = json.dumps(a_chat(stream=True)).encode()
    assert wire.edit(facts, body, clamp=None, inject_usage=True) is body


def test_others_are_asked() -> None:
    wire = dialect("together")
    facts = facts_of(wire, "/v1/chat/completions", a_chat(stream=True))
    body = json.dumps(a_chat(stream=True)).encode()
    edited = json.loads(wire.edit(facts, body, clamp=None, inject_usage=True))
    assert edited["stream_options"] == {"include_usage": True}


# --- perplexity ----------------------------------------------------------------------------


def test_perplexity_searches_on_every_call() -> None:
    wire = dialect("perplexity")
    size = facts_of(wire, "/chat/completions", a_chat(model="sonar-pro")).size
    assert (size.tool_windows, size.web_searches) == (-1, 1)
    size = facts_of(wire, "/chat/completions", a_chat(model="sonar-deep-research")).size
    assert (size.tool_windows, size.web_searches) == (-1, 60)
    size = facts_of(wire, "/chat/completions", a_chat(model="r1-1776")).size
    assert (size.tool_windows, size.web_searches) == (0, 0)


def test_perplexitys_queue_is_not_metered() -> None:
    route = dialect("perplexity").route("POST", "/async/chat/completions")
    assert route is not None
    assert route.kind == "unmetered"


# --- openrouter ----------------------------------------------------------------------------


def test_openrouters_fallback_models() -> None:
    wire, path = dialect("openrouter"), "/api/v1/chat/completions"
    facts = facts_of(wire, path, a_chat(models=["other", "third"]))
    assert (facts.model, facts.fallbacks, facts.clampable) == ("m", ("other", "third"), False)
    escaped = json.dumps(a_chat(models=["other"])).replace("models", "\\u006dodels").encode()
    route = wire.route("POST", path)
    assert route is not None
    assert wire.facts(route, path, b"", escaped).fallbacks == ("other",)
    assert facts_of(wire, path, a_chat()).fallbacks == ()
    for wrong in ("other", ["x"] * 17, [1]):
        with pytest.raises(Refusal):
            facts_of(wire, path, a_chat(models=wrong))


# --- rerank by tokens ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openrouter", "together"])
def test_rerank_reads_the_query_with_each_document(name: str) -> None:
    body = {"model": "m", "query": "é" * 100, "documents": ["a", "b", "c"]}
    size = facts_of(dialect(name), "/v1/rerank", body).size
    assert size.body_bytes == len(json.dumps(body).encode()) + 3 * 200
    assert (size.inputs, size.generates) == (3, False)
    with pytest.raises(Refusal, match="documents"):
        facts_of(dialect(name), "/v1/rerank", {"model": "m", "query": "q"})


# --- writer --------------------------------------------------------------------------------


def test_writers_own_paths() -> None:
    wire = dialect("writer")
    assert facts_of(wire, "/v1/chat", a_chat(n=2)).size.choices == 2
    facts = facts_of(wire, "/v1/completions", {"model": "m", "prompt": "p", "stream": True})
    meter = wire.meter(facts, status=200, content_type="text/event-stream", inject_usage=True)
    for value in ("Sure", ", here is", " one."):
        meter.feed(b"data: " + json.dumps({"value": value}).encode() + b"\n\n")
    meter.finish()
    reading = meter.reading()
    assert reading.usage is None
    assert reading.delivered_output_tokens == 1 + 3 + 2
