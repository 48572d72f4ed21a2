"""The reader of Cohere's replies: both versions, whole and streamed."""

import re

from pricing.usage import Usage
from proxy.providers.base import Reading
from proxy.providers.fields import as_count, as_dict, as_text
from proxy.providers.meters import PARSE, SKIP, decode, text_bytes
from proxy.sse import event_data

_LAST = frozenset(("message-end", "stream-end"))
_search_last = re.compile(rb"message-end|stream-end").search


class CohereReader:
    """Billed units, wherever a reply has them; the other counts are not what is charged."""

    usage_key = b"billed_units"

    def __init__(self) -> None:
        self.finished = False
        self._usage: Usage | None = None
        self._id = self._error = ""

    def needs(self, block: bytes) -> int:
        return PARSE if _search_last(block) else SKIP

    def ends(self, block: bytes) -> bool:
        if not _search_last(block):
            return False
        lines = block.split(b"\n") if block.startswith(b"{") else event_data(block)
        return any(_kind(as_dict(decode(line))) in _LAST for line in lines)

    def document(self, document: dict[str, object]) -> None:
        kind = _kind(document)
        if kind in _LAST:
            self.finished = True
        end = as_dict(document.get("delta" if kind == "message-end" else "response")) or document
        for fields in (document, end):
            self._id = as_text(fields.get("id") or fields.get("generation_id")) or self._id
        if "error" in end or end.get("finish_reason") == "ERROR":
            self._error = (as_text(end.get("error_type")) or "error")[:64]
        elif not kind and "message" in document and "finish_reason" not in document:
            self._refused(document)
        usage = as_dict(end.get("usage")) or as_dict(end.get("meta"))
        self.fragment(as_dict(usage.get("billed_units")), "")

    def _refused(self, document: dict[str, object]) -> None:
        if type(document["message"]) is str:  # a reply's is an object
            self._error = (as_text(document.get("error_type")) or "error")[:64]

    def marker(self, data: bytes) -> None:
        """`[DONE]` follows the last event."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        if usage:
            self._usage = _counts(usage)

    def text_bytes(self, document: dict[str, object]) -> int:
        kind = _kind(document)
        if not kind or kind == "text-generation":
            return text_bytes({"content": document.get("message"), "text": document.get("text")})
        return text_bytes(document.get("delta")) if kind != "message-end" else 0

    def reading(self) -> Reading:
        return Reading(self._usage, "", self._id, self.finished, self._error)


def _kind(document: dict[str, object]) -> str:
    return as_text(document.get("type")) or as_text(document.get("event_type"))


def _counts(billed: dict[str, object]) -> Usage:
    """Image tokens are beside the input tokens, not part of them."""
    images = as_count(billed.get("image_tokens"))
    usage = Usage(
        as_count(billed.get("input_tokens")) + images,
        as_count(billed.get("output_tokens")),
        input_image_tokens=images,
    )
    for name, unit in (("search_units", "search_units"), ("images", "input_images")):
        count = as_count(billed.get(name))
        if count:
            usage.units[unit] = count
    return usage
