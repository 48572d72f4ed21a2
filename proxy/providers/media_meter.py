"""Readers of replies that carry images, audio or transcripts."""

import re

from pricing.usage import Usage
from proxy.providers.base import Facts, Reading
from proxy.providers.fields import (
    MODEL_CHARS_MAX,
    as_dict,
    as_list,
    as_text,
    error_name,
    first_count,
)
from proxy.providers.media import counts_characters, image_unit
from proxy.providers.meters import PARSE, SKIP, decode, text_bytes
from proxy.providers.openai_meter import search_usage, service_tier, usage_from
from proxy.sse import event_data

_search_error = re.compile(rb'"error"\s*:\s*[{"]').search
MILLISECONDS_MAX = 10**12


class MediaReader:
    """What these replies share: usage at the end, or in the last event of a stream."""

    usage_key = b"usage"
    last_events: frozenset[str] = frozenset()

    def __init__(self, facts: Facts) -> None:
        self.finished = False
        self._facts = facts
        self._usage: Usage | None = None
        self._model = self._id = self._error = ""

    def needs(self, block: bytes) -> int:
        return PARSE if search_usage(block) or _search_error(block) else SKIP

    def ends(self, block: bytes) -> bool:
        return (b"done" in block or b"completed" in block) and self._is_last(block)

    def _is_last(self, block: bytes) -> bool:
        return any(
            as_dict(decode(data)).get("type") in self.last_events for data in event_data(block)
        )

    def document(self, document: dict[str, object]) -> None:
        self._model = as_text(document.get("model"))[:MODEL_CHARS_MAX] or self._model
        self._error = error_name(document.get("error")) or self._error
        if document.get("type") in self.last_events:
            self.finished = True
        self.read(document)

    def read(self, document: dict[str, object]) -> None:
        """Take the usage of a document."""
        raise NotImplementedError

    def marker(self, data: bytes) -> None:
        """Nothing but JSON is known here."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._model = self._model or model
        self.read({"usage": usage} if usage else {})

    def text_bytes(self, document: dict[str, object]) -> int:
        return text_bytes(document)

    def reading(self) -> Reading:
        return Reading(self._usage, self._model, self._id, self.finished, self._error)


class ImagesReader(MediaReader):
    """Tokens where the reply has them; images as many as came, else as many as were asked for."""

    last_events = frozenset(("image_generation.completed", "image_edit.completed"))

    def read(self, document: dict[str, object]) -> None:
        block = as_dict(document.get("usage"))
        made = len(as_list(document.get("data")))
        if not (block or made) or self._error:
            return
        usage = usage_from(block) or self._usage or Usage()
        if usage.output_tokens and not usage.output_image_tokens and not _splits_output(block):
            usage.output_image_tokens = usage.output_tokens
        figure = first_count(block, "cost_in_usd_ticks")
        usage.provider_cost_nano = figure // 10 if figure else usage.provider_cost_nano
        usage.service_tier = service_tier(document.get("service_tier"))
        facts = self._facts
        unit = image_unit(facts.model, facts.body)
        usage.units = {unit: made or facts.size.units[unit]}
        if facts.size.inline_images:
            usage.units["input_images"] = facts.size.inline_images
        self._usage = usage

    def text_bytes(self, document: dict[str, object]) -> int:
        return 0


def _splits_output(block: dict[str, object]) -> bool:
    details = as_dict(block.get("output_tokens_details"))
    return "image_tokens" in details or "text_tokens" in details


class SpeechReader(MediaReader):
    """The characters asked for, unless the last event of a stream has tokens."""

    last_events = frozenset(("speech.audio.done",))

    def read(self, document: dict[str, object]) -> None:
        usage = usage_from(as_dict(document.get("usage")))
        if usage is not None:
            usage.output_audio_tokens = usage.output_tokens
            self._usage = usage

    def text_bytes(self, document: dict[str, object]) -> int:
        return 0

    def reading(self) -> Reading:
        facts = self._facts
        if self._usage is None and counts_characters(facts) and not self._error:
            self._usage = Usage(units=dict(facts.size.units))
        return super().reading()


class TranscriptReader(MediaReader):
    """Tokens or seconds; a verbose reply may tell its duration alone, plain text nothing."""

    last_events = frozenset(("transcript.text.done", "transcription.done"))

    def read(self, document: dict[str, object]) -> None:
        block = as_dict(document.get("usage"))
        usage = usage_from(block)
        length = next(
            (
                units
                for value in (
                    block.get("seconds"),
                    block.get("prompt_audio_seconds"),
                    document.get("duration"),
                )
                if (units := _length(value))
            ),
            None,
        )
        if usage is None and length is None:
            return
        self._usage = usage or Usage()
        self._usage.units = length or {}


def _length(value: object) -> dict[str, int]:
    """Seconds, which some replies give with a fraction, or as text."""
    if type(value) is str and re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", value):
        value = float(value)
    if (type(value) is int or type(value) is float) and 0 < value < MILLISECONDS_MAX:
        if value == value // 1:
            return {"seconds": int(value)}
        return {"milliseconds": round(value * 1_000)}
    return {}


class BytesMeter:
    """A reply that is not text: nothing in it is read."""

    __slots__ = ("_reader", "ended")

    def __init__(self, reader: MediaReader) -> None:
        self._reader = reader
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        self._reader.finished = True
        return b""

    def reading(self) -> Reading:
        return self._reader.reading()
