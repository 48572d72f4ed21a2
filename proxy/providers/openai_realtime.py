"""OpenAI's Realtime API, at OpenAI and Azure: JSON events over a WebSocket.

A turn is one response, or one transcription of what was said: each reports its own usage, and is
priced at its own model. What a client's events may cause decides what is held, so they are read
strictly; the provider's events have the last word on what a session is.
"""

import json
import re
from typing import Literal, NamedTuple

import msgspec

from pricing.names import canonical_provider
from pricing.usage import RequestSize, Usage
from proxy.providers.base import Facts, Reading, Route
from proxy.providers.fields import MODEL_CHARS_MAX, as_dict, as_text, error_name
from proxy.providers.media_meter import TranscriptReader
from proxy.providers.openai_meter import usage_from
from proxy.providers.requests import bad

SESSION = Route("realtime", "session", "realtime")
ANSWER = Route("realtime", "metered", "realtime")
TRANSCRIPT = Route("realtime.transcription", "metered", "transcription")

_DIALECTS = frozenset(("openai", "azure"))
_PRICED_BY = frozenset(("openai", "azure", "free"))  # whose events are known
DEFAULT_TRANSCRIPTION = "gpt-4o-transcribe"
# Of audio in the API's formats: 24,000 samples of 16 bits, or 8,000 of 8 bits, a second.
PCM_BYTES_PER_S = 48_000
AUDIO_BYTES_PER_S_MIN = 8_000
SECONDS_HELD = 1_800  # of audio not transcribed yet, where that is billed by its length
INPUT_TOKENS_PER_S, OUTPUT_TOKENS_PER_S = 10, 20  # of audio
_BYTES_PER_TOKEN = 4  # of text
_EVENT_BYTES = 200  # of a delta, around the delta itself

Limit = int | None  # of a response's output tokens; None: the model's own
Unsaid = Literal["unsaid"]
_LIMITS = ("max_output_tokens", "max_response_output_tokens")

_search_kind = re.compile(
    rb'"type"\s*:\s*"(?:(?:transcription_)?session\.(?:created|updated)|response\.(?:created|done)|'
    rb"input_audio_buffer\.committed|error|"
    rb'conversation\.item\.input_audio_transcription\.(?:completed|failed))"'
).search
_search_delta = re.compile(rb'"type"\s*:\s*"response\.[\w.]{1,64}\.delta"').search
_search_response_id = re.compile(rb'"response_id"\s*:\s*"([^"\\]{1,128})"').search


def is_metered_at(dialect: str, prices: str) -> bool:
    """Whether sessions of a provider can be metered: other hosts have events of their own."""
    return dialect in _DIALECTS and canonical_provider(prices) in _PRICED_BY


# --- events --------------------------------------------------------------------------------


class Event(NamedTuple):
    """An event of a client."""

    kind: str
    id: str
    body: dict[str, object]


def client_event(message: bytes) -> Event:
    """Read strictly: what two readers could understand in two ways is no event. Raises Refusal
    `bad_request`."""
    try:
        body = json.loads(message.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise bad(f"the event is not valid JSON: {exc}") from None
    if type(body) is not dict or type(body.get("type")) is not str:
        raise bad("the event is not an object with a `type`")
    return Event(body["type"], as_text(body.get("event_id")), body)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def server_event(message: bytes) -> dict[str, object] | None:
    """An event that says something of turns or the session; None: it does not."""
    if _search_kind(message) is None:
        return None
    try:
        return as_dict(msgspec.json.decode(message))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def delta_of(message: bytes) -> str | None:
    """The response that a piece of output belongs to; None: it is none."""
    if _search_delta(message) is None:
        return None
    found = _search_response_id(message)
    return found[1].decode("utf-8", "replace") if found else None


# --- what a session is ---------------------------------------------------------------------


def limit_in(fields: dict[str, object]) -> Limit | Unsaid:
    """The output limit that a session or a response names; of two the larger one."""
    found = [fields[name] for name in _LIMITS if name in fields]
    if not found:
        return "unsaid"
    limits = [value for value in found if type(value) is int and value > 0]
    return max(limits) if len(limits) == len(found) else None


def is_above(limit: Limit, other: Limit) -> bool:
    return other is not None and (limit is None or limit > other)


def transcription_in(session: dict[str, object]) -> str | None:
    """The model that transcribes what is said, "" for none of its own choice; None: the session
    says nothing of it, or turns it off."""
    audio = as_dict(as_dict(session.get("audio")).get("input"))
    for fields, name in ((audio, "transcription"), (session, "input_audio_transcription")):
        found = fields.get(name)
        if type(found) is dict:
            return as_text(found.get("model"))[:MODEL_CHARS_MAX]
    return None


# --- what a turn can cost ------------------------------------------------------------------


def answer_facts(model: str, limit: Limit) -> Facts:
    """A response: it reads the conversation, whatever that holds."""
    size = RequestSize(0, output_limit=limit, windowed=True)
    return Facts(ANSWER, model, True, size, {}, clampable=False)


def transcript_facts(model: str, seconds: int) -> Facts:
    """A transcription of at most so many seconds."""
    size = RequestSize(0, windowed=True, units={"seconds": seconds})
    return Facts(TRANSCRIPT, model, True, size, {}, clampable=False)


def suffices(held: Facts, wanted: Facts) -> bool:
    """Whether what is held for one turn is enough for another."""
    return (
        held.model == wanted.model
        and not is_above(wanted.size.output_limit, held.size.output_limit)
        and wanted.size.units.get("seconds", 0) <= held.size.units.get("seconds", 0)
    )


# --- what a turn has cost ------------------------------------------------------------------


class Heard(NamedTuple):
    """What a client has sent that is not in a reported usage yet."""

    context_tokens: int = 0  # of the response before, which are read again
    text_bytes: int = 0
    audio_bytes: int = 0
    transcribed: bool = False

    def usage(self) -> Usage:
        """An estimate."""
        audio = self.audio_bytes * INPUT_TOKENS_PER_S // PCM_BYTES_PER_S
        text = self.context_tokens + -(-self.text_bytes // _BYTES_PER_TOKEN)
        usage = Usage(text + audio, input_audio_tokens=audio)
        if self.transcribed:
            usage.units = {"seconds": -(-self.audio_bytes // PCM_BYTES_PER_S)}
        return usage


class TurnMeter:
    """Reads a turn off its events; those are never held back."""

    ended = False

    def __init__(self, model: str, turn_id: str, heard: Heard) -> None:
        self.failed = False  # the provider says so, and no usage
        self._model = model
        self._id = turn_id
        self._heard = heard
        self._usage: Usage | None = None
        self._error = ""
        self._text_bytes = self._audio_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """A piece of output, as it came."""
        size = max(len(data) - _EVENT_BYTES, 1)
        if b"audio.delta" in data:
            self._audio_bytes += size * 3 // 4
        else:
            self._text_bytes += size
        return data

    def finish(self) -> bytes:
        return b""

    def answered(self, response: dict[str, object]) -> None:
        """The response as it is when it is done."""
        self.ended = True
        self._usage = usage_from(as_dict(response.get("usage")))
        details = as_dict(response.get("status_details"))
        self._error = error_name(details.get("error"))
        self.failed = self._usage is None and response.get("status") == "failed"

    def transcribed(self, facts: Facts, event: dict[str, object]) -> None:
        """The event that ends a transcription."""
        self.ended = True
        self._error = error_name(event.get("error"))
        self.failed = bool(self._error)
        reader = TranscriptReader(facts)
        reader.read(event)
        self._usage = reader.reading().usage

    @property
    def tokens(self) -> int:
        """What the next response reads of this one."""
        return self._usage.total_tokens if self._usage is not None else 0

    def reading(self) -> Reading:
        if self._usage is not None or self.failed:
            return Reading(self._usage, self._model, self._id, self.ended, self._error)
        usage = self._heard.usage()
        usage.output_audio_tokens = self._audio_bytes * OUTPUT_TOKENS_PER_S // PCM_BYTES_PER_S
        text = -(-self._text_bytes // _BYTES_PER_TOKEN)
        usage.output_tokens = usage.output_audio_tokens + text
        return Reading(usage, self._model, self._id, error=self._error, partial=True)
