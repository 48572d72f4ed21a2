import json
from decimal import Decimal
from pathlib import Path

import pytest

from pricing.errors import SourceError
from pricing.sources.files import LITELLM
from pricing.sources.litellm import convert
from pricing.sources.load import load_path
from pricing.units import MAPS

CHAT = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.5e-06}
NAMED = {"litellm_provider": "openai", "mode": "chat", "max_tokens": 1}


def map_file(directory: Path, content: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LITELLM.member
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def entry(directory: Path, key: str, **fields: object) -> dict[str, object]:
    (found,) = load_path(map_file(directory, {key: CHAT | fields}), "2026-11-21").entries.values()
    return found


def test_prices_are_exact_text_and_counts_whole_numbers(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        "gpt-x",
        output_cost_per_token=7.5e-08,
        cache_read_input_token_cost=0,
        max_tokens=16384.0,
        tiered_pricing=[{"range": [0, 32000.0], "input_cost_per_token": 1e-06}],
        provider_specific_entry={"us": 1.1, "fast": 2, "junk": {"a": 1}},
        supports_reasoning=True,
        supports_vision=True,
        source="https://example.com",
        output_cost_per_reasoning_token=None,
    )
    assert found == {
        "mode": "chat",
        "input_cost_per_token": "0.0000015",
        "output_cost_per_token": "0.000000075",
        "cache_read_input_token_cost": "0",
        "max_tokens": 16384,
        "tiered_pricing": [{"range": [0, 32000], "input_cost_per_token": "0.000001"}],
        "provider_specific_entry": {"us": "1.1", "fast": "2"},
        "supports_reasoning": True,
        "search_context_cost_per_query": dict.fromkeys(
            ["search_context_size_high", "search_context_size_low", "search_context_size_medium"],
            "0.01",
        ),
        "code_interpreter_cost_per_session": "0.03",
        "file_search_cost_per_call": "0.0025",
    }


@pytest.mark.parametrize(
    ("key", "provider", "name"),
    [
        ("gpt-4o", "openai", ("openai", "gpt-4o")),
        ("groq/openai/gpt-oss", "groq", ("groq", "openai/gpt-oss")),
        ("gemini-2.5-pro", "vertex_ai-language-models", ("vertex_ai", "gemini-2.5-pro")),
        ("vertex_ai/claude", "vertex_ai-anthropic_models", ("vertex_ai", "claude")),
        ("azure/gpt-3.5", "azure_text", ("azure", "gpt-3.5")),
        ("us.anthropic.x-v1:0", "bedrock_converse", ("bedrock", "us.anthropic.x-v1:0")),
        ("bedrock/us-west-2/x", "bedrock", ("bedrock", "us-west-2/x")),
        ("command-r", "cohere_chat", ("cohere", "command-r")),
        ("gpt-3.5-instruct", "text-completion-openai", ("openai", "gpt-3.5-instruct")),
        ("text-completion-codestral/c", "text-completion-codestral", ("codestral", "c")),
    ],
)
def test_keys_become_provider_and_model(key: str, provider: str, name: tuple[str, str]) -> None:
    assert list(convert({key: NAMED | {"litellm_provider": provider}})) == [name]


def test_a_model_listed_twice_is_one_entry() -> None:
    bare = {"litellm_provider": "gemini", "input_cost_per_token": Decimal("3e-07")}
    prefixed = bare | {"input_cost_per_token": Decimal("4e-07"), "max_tokens": 5}
    both = {"g": bare | {"output_cost_per_token": Decimal("1e-06")}, "gemini/g": prefixed}
    found = convert(both)["gemini", "g"]
    assert found == convert(dict(reversed(both.items())))["gemini", "g"]
    assert (found["input_cost_per_token"], found["output_cost_per_token"]) == (
        "0.0000004",
        "0.000001",
    )
    # A zero that means unknown does not hide a price.
    both["gemini/g"] = prefixed | {"input_cost_per_token": 0}
    assert convert(both)["gemini", "g"]["input_cost_per_token"] == "0.0000003"


def test_what_the_map_leaves_to_code_is_written_out(tmp_path: Path) -> None:
    fireworks = {"litellm_provider": "fireworks_ai"}
    assert entry(tmp_path, "f", **fireworks)["cache_read_input_token_cost"] == "0.00000075"
    given = entry(tmp_path, "f", **fireworks, cache_read_input_token_cost=1e-07)
    assert given["cache_read_input_token_cost"] == "0.0000001"
    search = "search_context_cost_per_query"
    assert entry(tmp_path, "m")[search] == dict.fromkeys(
        ["search_context_size_high", "search_context_size_low", "search_context_size_medium"],
        "0.025",
    )
    sizes = {"search_context_size_medium": 0.5}
    assert entry(tmp_path, "m", **{search: sizes})[search] == {"search_context_size_medium": "0.5"}
    assert search not in entry(tmp_path, "m", mode="embedding")
    assert search not in entry(tmp_path, "m", litellm_provider="mistral")
    assert entry(tmp_path, "gpt-4o-mini-2024-07-18")["max_tokens_per_image"] == 48_169
    assert "max_tokens_per_image" not in entry(tmp_path, "gpt-4o-mini-audio-preview")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object"),
        ("{}", "no models"),
        ('{"m": {"mode": "chat"}}', "litellm_provider"),
        ('{"m": {"litellm_provider": "p", "input_cost_per_token": NaN}}', "not JSON.*NaN"),
        ('{"m": {"litellm_provider": "p", "max_tokens": 1.5}}', "1.5 is not a whole number"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        load_path(map_file(tmp_path, content), "2026-11-21")


def test_a_price_read_as_a_float_is_refused() -> None:
    with pytest.raises(TypeError, match="its exact price is lost"):
        convert({"m": NAMED | {"input_cost_per_token": 1e-07}})


def test_images_by_quality_and_size_are_variants_of_one_entry() -> None:
    def named(key: str, provider: str = "openai", **fields: object) -> dict[str, dict[str, object]]:
        return {key: {"litellm_provider": provider, "mode": "image_generation", **fields}}

    raw = {
        # $0.08 an image: the map says 7.629e-08 per pixel, of 1,048,576.
        **named("hd/1024-x-1024/dall-e-3", input_cost_per_pixel=Decimal("7.629e-08")),
        **named("1024-x-1024/dall-e-3", input_cost_per_image=Decimal("0.04")),
        **named("512-x-512/50-steps/sd", "bedrock", output_cost_per_image=Decimal("0.018")),
        **named("max-x-max/max-steps/sd", "bedrock", output_cost_per_image=Decimal("0.07")),
        **named("free/9-x-9/sd", "bedrock", output_cost_per_pixel=Decimal(0)),
        **named("sd", "bedrock", max_tokens=77),
    }
    assert convert(raw) == {
        ("openai", "dall-e-3"): {
            "mode": "image_generation",
            "output_cost_per_image@hd/1024x1024": "0.08",
            "output_cost_per_image@1024x1024": "0.04",
        },
        ("bedrock", "sd"): {
            "mode": "image_generation",
            "max_tokens": 77,
            "output_cost_per_image@512x512/50-steps": "0.018",
            "output_cost_per_image@maxxmax/max-steps": "0.07",
        },
    }


def test_variants_in_key_names() -> None:
    fields = {
        "output_cost_per_second": Decimal("0.1"),
        "output_cost_per_second_720p": Decimal("0.2"),
        "output_cost_per_second_4k": Decimal("0.3"),
        "output_cost_per_image_0.5K": Decimal("0.4"),
        "input_cost_per_video_per_second_above_15s_interval": Decimal("0.5"),
        "input_cost_per_image": Decimal("0.6"),
    }
    (found,) = convert({"v": {"litellm_provider": "x", "mode": "chat", **fields}}).values()
    assert found == {
        "mode": "chat",
        "output_cost_per_second": "0.1",
        "output_cost_per_second@720p": "0.2",
        "output_cost_per_second@4k": "0.3",
        "output_cost_per_image@0.5K": "0.4",
        "input_cost_per_video_per_second@15s": "0.5",
        "input_cost_per_image": "0.6",
    }


def test_the_price_of_an_image_made_is_one_of_output() -> None:
    image = {"litellm_provider": "xai", "mode": "image_edit", "input_cost_per_image": Decimal(1)}
    (found,) = convert({"xai/i": image}).values()
    assert found == {"mode": "image_edit", "output_cost_per_image": "1"}


@pytest.mark.parametrize(
    ("provider", "fields", "prices"),
    [
        # The map's own `openai/container` and `azure/container`, litellm's file search price.
        ("openai", {}, ("0.03", "0.0025", None)),
        ("azure", {"mode": "responses"}, ("0.033", "0.0025", None)),
        ("openai", {"mode": "embedding"}, (None, None, None)),
        # Google's list price: $25 per 1,000 prompts grounded with Maps, or $14 per 1,000 queries.
        ("gemini", {}, (None, None, "0.025")),
        ("gemini", {"web_search_billing_unit": "per_query"}, (None, None, "0.014")),
        ("gemini", {"google_maps_grounding_cost_per_query": 1}, (None, None, "1")),
    ],
)
def test_prices_of_tools_the_map_leaves_out(
    tmp_path: Path, provider: str, fields: dict[str, object], prices: tuple[str | None, ...]
) -> None:
    found = entry(tmp_path, "m", **({"litellm_provider": provider} | fields))
    keys = ("code_interpreter_cost_per_session", "file_search_cost_per_call", MAPS)
    assert tuple(found.get(key) for key in keys) == prices


def test_tokens_of_an_output_image() -> None:
    fields = {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 1}
    for model, most in (
        ("gpt-image-1", 6_540),
        ("gpt-image-1.5-2025-12-16", 6_540),
        ("gpt-image-2", 34_000),
        ("gpt-5", None),
    ):
        (found,) = convert({model: fields}).values()
        assert found.get("max_tokens_per_output_image") == most
