"""Our costs beside those of litellm's own calculators, for every priced entry of its map.

`python -m tests.pricing.oracle` prints the comparison; the tests of the oracle use its parts. The
oracle computes in floats and we do not, so equal means to a thousandth of a nano-USD. Where we
differ on purpose a rule says why.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple

from pricing.calculator import cost
from pricing.price import Price, is_priced
from pricing.sources.files import LITELLM, installed
from pricing.sources.litellm import convert
from pricing.sources.load import load
from pricing.usage import Usage

PEAK = datetime(2026, 11, 23, 8, tzinfo=UTC)  # a Monday morning: no off-peak window is open
WEEKEND = datetime(2026, 11, 21, 8, tzinfo=UTC)
TOLERANCE_NANO = 0.001
AVAILABLE = importlib.util.find_spec("litellm") is not None

RULES = {
    "cached image": "litellm bills cached image tokens as cached text even where the entry has a "
    "price of their own, which we take (gpt-image, gpt-realtime)",
    "perplexity": "litellm's calculator for Perplexity knows no tokens but input and output, and "
    "keeps a second price of perplexity/sonar",
    "listed twice": "a model listed both bare and with its provider's prefix is one entry of ours, "
    "with the keys of both, and a zero that means unknown hides no price",
    "not found": "litellm does not find some entries by their own name",
    "list price": "the map divides some list prices of images by their pixels; we take the list "
    "price, to a hundredth of a cent",
    "images made": "litellm takes the price of an image put in for the price of one made where an "
    "entry has both",
}


class Model(NamedTuple):
    key: str  # in the map
    raw: dict[str, Any]  # its entry there
    price: Price


class Comparison(NamedTuple):
    """One usage of one entry. `rule`: why the two differ; "" if they are equal, "?" if nobody
    knows. Amounts in nano-USD; theirs is None where litellm has none."""

    key: str
    usage: str
    ours: float
    theirs: float | None
    rule: str


SHAPES = {
    "plain": Usage(1_234, 567),
    "cached": Usage(5_000, 10, cache_read_tokens=4_096),
    "written": Usage(5_000, 10, cache_write_tokens=3_000),
    "written 1h": Usage(
        5_000, 10, cache_read_tokens=1_000, cache_write_tokens=3_000, cache_write_1h_tokens=2_000
    ),
    "reasoning": Usage(100, 900, reasoning_tokens=700),
    "audio": Usage(
        1_000,
        900,
        input_audio_tokens=600,
        output_audio_tokens=500,
        cache_read_tokens=200,
        cache_read_audio_tokens=100,
    ),
    "images": Usage(
        3_000, 1_300, input_image_tokens=2_000, output_image_tokens=1_290, input_video_tokens=500
    ),
    "cached images": Usage(
        3_000, 9, input_image_tokens=2_000, cache_read_tokens=1_500, cache_read_image_tokens=1_000
    ),
}
LONG_PROMPTS = (32_001, 100_000, 100_001, 128_001, 200_000, 200_001, 256_001, 272_000, 272_001)
LONG_SHAPES = {
    f"{tokens} tokens": Usage(
        tokens,
        10_000,
        cache_read_tokens=20_000,
        cache_write_tokens=2_000,
        cache_write_1h_tokens=500,
        reasoning_tokens=300,
    )
    for tokens in (*LONG_PROMPTS, 512_001)
}


@contextlib.contextmanager
def oracle() -> Iterator[SimpleNamespace]:
    """litellm, offline and silent."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import litellm
        from litellm import cost_calculator, types
        from litellm.litellm_core_utils.llm_cost_calc import utils
        from litellm.llms import get_cost_for_web_search_request
        from litellm.llms.anthropic import cost_calculation as anthropic
        from litellm.llms.base_llm.ocr import transformation as ocr

        litellm.suppress_debug_info = True
        logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
        yield SimpleNamespace(
            cost_per_token=litellm.cost_per_token,
            generic=utils.generic_cost_per_token,
            batch=cost_calculator.batch_cost_calculator,
            anthropic=anthropic.cost_per_token,
            search=get_cost_for_web_search_request,
            seconds=cost_calculator.transcription_cost,
            rerank=cost_calculator.rerank_cost,
            pages=cost_calculator.ocr_cost,
            video=cost_calculator.default_video_cost_calculator,
            image=cost_calculator.default_image_cost_calculator,
            types=types.utils,
            ocr=ocr,
        )


def every_model() -> Iterator[tuple[Model, bool]]:
    """Each entry of the map with a price, and whether it is an entry of ours alone."""
    found = installed(LITELLM)
    raw, table = json.loads(found.data), load(found, "2026-11-21").entries
    for key, entry in json.loads(found.data, parse_float=Decimal).items():
        for name, alone in convert({key: entry}).items():
            if is_priced(alone):
                yield Model(key, raw[key], Price.compile(*name, table[name])), table[name] == alone


def distinct_models() -> list[Model]:
    """Those that price tokens and are entries alone, one of each set that has the same prices."""
    found: dict[str, Model] = {}
    for model, alone in every_model():
        if alone and not model.price.by_units:
            same = json.dumps([model.price.provider, model.price.entry], sort_keys=True)
            found.setdefault(same, model)
    return list(found.values())


def theirs(usage: Usage, types: Any) -> Any:
    """The same usage as litellm's object."""
    details = types.PromptTokensDetailsWrapper(
        cached_tokens=usage.cache_read_tokens,
        audio_tokens=usage.input_audio_tokens,
        image_tokens=usage.input_image_tokens,
        video_tokens=usage.input_video_tokens,
        cache_creation_tokens=usage.cache_write_tokens,
        cached_tokens_details={
            "audio_tokens": usage.cache_read_audio_tokens,
            "image_tokens": usage.cache_read_image_tokens,
        },
        cache_creation_token_details=types.CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=usage.cache_write_tokens - usage.cache_write_1h_tokens,
            ephemeral_1h_input_tokens=usage.cache_write_1h_tokens,
        )
        if usage.cache_write_tokens
        else None,
    )
    return types.Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=details,
        completion_tokens_details=types.CompletionTokensDetailsWrapper(
            reasoning_tokens=usage.reasoning_tokens,
            audio_tokens=usage.output_audio_tokens,
            image_tokens=usage.output_image_tokens,
        ),
        inference_geo=usage.inference_geo or None,
        speed=usage.speed or None,
    )


def exact_nano(usage: Usage, price: Price, at_s: float = PEAK.timestamp()) -> float:
    """Rule: litellm leaves out the fee per request that some Perplexity models have."""
    items = cost(usage, price, at_s=at_s).items
    return sum(count * atto for name, count, atto in items if name != "request") / 10**9


# --- the whole map ---------------------------------------------------------------------------


def compare(litellm: SimpleNamespace, shapes: Mapping[str, Usage] = SHAPES) -> Iterator[Comparison]:
    """Every priced entry: by tokens in some shapes, and by what else it is billed by. Rule: one
    named by quality and size is the price of an image, never one of tokens."""
    blocks = {name: theirs(usage, litellm.types) for name, usage in shapes.items()}
    for model, alone in every_model():
        if not model.price.by_units and "-x-" not in model.key:
            for name, usage in shapes.items():
                yield _by_tokens(litellm, model, alone, name, usage, blocks[name])
        yield from _by_units(litellm, model)


def _by_tokens(
    litellm: SimpleNamespace, model: Model, alone: bool, name: str, usage: Usage, block: Any
) -> Comparison:
    """The whole way, from the model's name; off-peak prices go by the wall clock there."""
    price = model.price
    ours = exact_nano(usage, price, time.time())
    try:
        usd = litellm.cost_per_token(
            model=model.key, custom_llm_provider=price.provider, usage_object=block
        )
    except Exception as error:
        known = "ModelNotMapped" in type(error).__name__
        return Comparison(model.key, name, ours, None, "not found" if known else "?")
    nano = sum(usd) * 10**9
    if abs(nano - ours) < TOLERANCE_NANO:
        return Comparison(model.key, name, ours, nano, "")
    return Comparison(model.key, name, ours, nano, _token_rule(model, alone, name))


def _token_rule(model: Model, alone: bool, shape: str) -> str:
    if shape == "cached images" and "cache_read_input_image_token_cost" in model.price.entry:
        return "cached image"
    simple = shape in ("plain", "reasoning") and model.key != "perplexity/perplexity/sonar"
    if model.price.provider == "perplexity" and not simple:
        return "perplexity"
    return "?" if alone else "listed twice"


def _by_units(litellm: SimpleNamespace, model: Model) -> Iterator[Comparison]:
    key, raw, price = model
    mode, provider = raw.get("mode"), price.provider
    usage: dict[str, int] = {}
    if "-x-" in key:
        yield from _named_image(litellm, model)
    elif mode == "audio_transcription" and price.by_units:
        usage, usd = {"seconds": 90}, sum(litellm.seconds(key, provider, 90.0))
    elif mode == "rerank" and price.by_units:
        usage, usd = {"search_units": 3}, sum(litellm.rerank(key, provider, {"search_units": 3}))
    elif mode == "ocr" and "ocr_cost_per_page" in raw:
        info = litellm.ocr.OCRUsageInfo(pages_processed=3)
        reply = litellm.ocr.OCRResponse(pages=[], model=key, usage_info=info)
        usage, usd = {"pages": 3}, litellm.pages(key, provider, reply)[0]
    elif mode == "audio_speech" and "input_cost_per_character" in raw:
        said = {"call_type": "speech", "prompt_characters": 1_000}
        both = litellm.cost_per_token(model=key, custom_llm_provider=provider, **said)
        usage, usd = {"characters": 1_000}, sum(both)
    elif mode == "video_generation":
        usage, usd = {"output_seconds": 8}, litellm.video(key, 8.0, provider)
    elif mode in ("image_generation", "image_edit") and _per_image(raw):
        usage, usd = {"images": 2}, litellm.image(key, provider, n=2, size="9x9")
    if usage:
        yield _unit_comparison(model, usage, usd)


def _per_image(raw: dict[str, Any]) -> bool:
    return "output_cost_per_image" in raw or "input_cost_per_image" in raw


def _named_image(litellm: SimpleNamespace, model: Model) -> Iterator[Comparison]:
    """One named by quality and size: "hd/1024-x-1024/dall-e-3"."""
    key, _, price = model
    parts = key.split("/")
    at = next(number for number, part in enumerate(parts) if "-x-" in part)
    if "max" in parts[at] or "steps" in key:
        return  # litellm has no calculator for them
    quality = parts[at - 1] if at and parts[at - 1] not in (price.provider, "bedrock") else ""
    variant = "/".join(part for part in (quality, parts[at].replace("-x-", "x")) if part)
    usage = {f"images@{variant}": 2}
    prefix = f"{price.provider}/" if parts[0] == price.provider else ""
    try:
        usd = litellm.image(
            prefix + "/".join(parts[at + 1 :]),
            price.provider,
            quality=quality or None,
            n=2,
            size=parts[at],
        )
    except Exception as error:
        ours = exact_nano(Usage(units=usage), price)
        known = "not found in cost map" in str(error)
        yield Comparison(key, _text(usage), ours, None, "not found" if known else "?")
    else:
        yield _unit_comparison(model, usage, usd)


def _unit_comparison(model: Model, usage: dict[str, int], usd: float) -> Comparison:
    ours, nano = exact_nano(Usage(units=usage), model.price), usd * 10**9
    rule = ""
    if abs(nano - ours) >= TOLERANCE_NANO:
        rule = "?"
        if abs(nano - ours) < 2 * 50_000 and "input_cost_per_pixel" in model.raw:
            rule = "list price"
        elif {"output_cost_per_image", "input_cost_per_image"} <= model.raw.keys():
            rule = "images made"
    return Comparison(model.key, _text(usage), ours, nano, rule)


def _text(usage: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in usage.items())


def report(found: list[Comparison]) -> Iterator[str]:
    rules = Counter(each.rule for each in found)
    entries = len({each.key for each in found})
    yield f"litellm {installed(LITELLM).version}: {rules.total()} costs of {entries} entries"
    yield f"{rules['']:>8} equal"
    for name, why in RULES.items():
        yield f"{rules[name]:>8} {name}: {why}"
    yield f"{rules['?']:>8} not explained"
    for each in found:
        if each.rule == "?":
            yield f"         {each.key}, {each.usage}: ours {each.ours}, theirs {each.theirs}"


def main() -> int:
    """Print the comparison; 1 if something differs that no rule explains."""
    if not AVAILABLE:
        sys.stderr.write("oracle: litellm is not installed\n")
        return 2
    with oracle() as litellm:
        found = list(compare(litellm))
    sys.stdout.write("".join(f"{line}\n" for line in report(found)))
    return 1 if any(each.rule == "?" for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
