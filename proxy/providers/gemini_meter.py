"""The reader of Google's generateContent replies, embeddings included."""

import re

from pricing.usage import Usage
from proxy.providers.base import Reading
from proxy.providers.fields import (
    MODEL_CHARS_MAX,
    as_count,
    as_dict,
    as_list,
    as_text,
    consistent,
    error_name,
)
from proxy.providers.meters import KEEP, PARSE, SKIP, text_bytes

_search_error = re.compile(rb'"error"\s*:\s*\{').search
_search_tools = re.compile(rb'"webSearchQueries"|"maps"').search


class GenerateReader:
    """generateContent and its kin: every chunk carries cumulative usage, the last one counts."""

    usage_key = b"usageMetadata"

    def __init__(self) -> None:
        self.finished = False
        self._fields: dict[str, object] = {}
        self._model = self._id = self._error = ""
        self._queries: set[str] = set()
        self._maps = False

    def needs(self, block: bytes) -> int:
        if _search_error(block) or _search_tools(block):
            return PARSE
        if b"TokenCount" in block:
            return KEEP
        return SKIP

    def ends(self, block: bytes) -> bool:
        return False  # this API has no last event: chunks may follow a finishReason

    def document(self, document: dict[str, object]) -> None:
        fields = document.get("usageMetadata")
        if type(fields) is dict and any(name.endswith("TokenCount") for name in fields):
            self._fields = fields
        self._model = as_text(document.get("modelVersion"))[:MODEL_CHARS_MAX] or self._model
        self._id = as_text(document.get("responseId")) or self._id
        error = as_dict(document.get("error"))
        if error:
            self._error = as_text(error.get("status"))[:64] or error_name(error)
        if as_dict(document.get("promptFeedback")).get("blockReason"):
            self.finished = True
        for candidate in as_list(document.get("candidates")):
            candidate = as_dict(candidate)
            if candidate.get("finishReason"):
                self.finished = True
            self._read_grounding(as_dict(candidate.get("groundingMetadata")))

    def _read_grounding(self, grounding: dict[str, object]) -> None:
        """Queries, a set since chunks repeat them; empty ones are not billed."""
        for query in as_list(grounding.get("webSearchQueries")):
            if type(query) is str and query:
                self._queries.add(query)
        for chunk in as_list(grounding.get("groundingChunks")):
            self._maps = self._maps or "maps" in as_dict(chunk)

    def marker(self, data: bytes) -> None:
        """Every document of this API is JSON."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._fields = usage or self._fields

    def text_bytes(self, document: dict[str, object]) -> int:
        return text_bytes(
            [as_dict(part).get("content") for part in as_list(document.get("candidates"))]
        )

    def reading(self) -> Reading:
        usage = self._usage()
        return Reading(
            usage=usage,
            model=self._model,
            response_id=self._id,
            complete=self.finished,
            error=self._error,
            partial=usage is not None and not self.finished,
        )

    def _usage(self) -> Usage | None:
        fields = self._fields
        if not fields:
            return None
        prompt = _modalities(fields, "promptTokensDetails", "toolUsePromptTokensDetails")
        cached = _modalities(fields, "cacheTokensDetails")
        output = _modalities(fields, "candidatesTokensDetails")
        thoughts = as_count(fields.get("thoughtsTokenCount"))
        usage = Usage(
            input_tokens=as_count(fields.get("promptTokenCount"))
            + as_count(fields.get("toolUsePromptTokenCount")),
            output_tokens=as_count(fields.get("candidatesTokenCount")) + thoughts,
            cache_read_tokens=as_count(fields.get("cachedContentTokenCount")),
            reasoning_tokens=thoughts,
            input_audio_tokens=prompt.get("AUDIO", 0),
            cache_read_audio_tokens=cached.get("AUDIO", 0),
            output_audio_tokens=output.get("AUDIO", 0),
            input_image_tokens=prompt.get("IMAGE", 0),
            cache_read_image_tokens=cached.get("IMAGE", 0),
            output_image_tokens=output.get("IMAGE", 0),
            input_video_tokens=prompt.get("VIDEO", 0),
            service_tier=_tier(fields),
        )
        if self._queries:
            usage.units = {"web_search": len(self._queries)}
        if self._maps:
            usage.units["google_maps"] = 1
        return consistent(usage)


def _modalities(fields: dict[str, object], *names: str) -> dict[str, int]:
    """Tokens by modality; the lists may be missing or partial."""
    found: dict[str, int] = {}
    for name in names:
        for entry in as_list(fields.get(name)):
            modality = as_text(as_dict(entry).get("modality"))
            found[modality] = found.get(modality, 0) + as_count(as_dict(entry).get("tokenCount"))
    return found


def _tier(fields: dict[str, object]) -> str:
    """ON_DEMAND_FLEX and "flex" are "flex"; numbers are an enum whose first values are standard."""
    tier = as_text(fields.get("trafficType")) or as_text(fields.get("serviceTier"))
    tier = tier.lower().removeprefix("service_tier_").removeprefix("on_demand").lstrip("_")
    return "" if tier in ("standard", "unspecified", "traffic_type_unspecified") else tier
