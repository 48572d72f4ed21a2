"""Routes beside the chat-like ones of a dialect: what bounds a request, what reads a reply.

Their output limit cannot be set in the request, so these calls are never clamped.
"""

from collections.abc import Callable
from typing import NamedTuple

from proxy.providers.base import Facts, Meter, Route
from proxy.providers.media import image_facts, speech_facts, transcription_facts
from proxy.providers.media_meter import (
    BytesMeter,
    ImagesReader,
    MediaReader,
    SpeechReader,
    TranscriptReader,
)
from proxy.providers.meters import EventMeter, JsonMeter, Reader
from proxy.providers.openai_meter import ChatReader

_NOT_JSON = ("audio/", "application/octet-stream", "application/x-subrip", "text/")


class Endpoint(NamedTuple):
    """`facts` of (route, path, body), which raises Refusal `bad_request`; `reader` of its replies,
    whether one JSON document or a stream of them."""

    facts: Callable[[Route, str, bytes], Facts]
    reader: Callable[[Facts], Reader]

    def meter(self, facts: Facts, content_type: str, *, streamed: bool, failed: bool) -> Meter:
        if failed:
            return JsonMeter(ChatReader())
        reader = self.reader(facts)
        if streamed:
            return EventMeter(reader)
        if isinstance(reader, MediaReader) and content_type.lower().startswith(_NOT_JSON):
            return BytesMeter(reader)
        return JsonMeter(reader)


IMAGES = Endpoint(image_facts, ImagesReader)
SPEECH = Endpoint(speech_facts, SpeechReader)
TRANSCRIPTION = Endpoint(transcription_facts, TranscriptReader)

MEDIA = {
    "images.generations": IMAGES,
    "images.edits": IMAGES,
    "images.variations": IMAGES,
    "audio.speech": SPEECH,
    "audio.transcriptions": TRANSCRIPTION,
    "audio.translations": TRANSCRIPTION,
}

REALTIME_BESIDE = Route(
    "realtime",
    "unmetered",
    reason="would let a client talk to the provider beside Tollkeeper, with a key of its own or "
    "over WebRTC, and no budget would see the cost: open the WebSocket (GET .../realtime) instead",
)
