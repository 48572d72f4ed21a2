"""Mistral: OpenAI's wire format, fill-in-the-middle, and OCR by the page.

It refuses fields it does not know, and its streams tell their usage unasked in the last chunk.
Its SDK knows no error event, so a stream that has to be cut is cut without one.
"""

from collections.abc import Mapping

from pricing.usage import RequestSize, Usage
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Reading, Route
from proxy.providers.endpoints import SPEECH, TRANSCRIPTION, Endpoint
from proxy.providers.fields import MODEL_CHARS_MAX, as_count, as_dict, as_text, error_name
from proxy.providers.host import Host
from proxy.providers.meters import SKIP
from proxy.providers.openai import CHAT, COMPLETIONS, EMBEDDINGS, OpenAI

HOST = Host("mistral", "mistral", "https://api.mistral.ai", ("MISTRAL_API_KEY",), "/v1")

OCR = Route("ocr", "metered", "ocr")
PAGES_MAX = 1_000  # of one document, by the API's own limit

_POSTS: rq.Posts = (
    ("/chat/completions", CHAT),
    ("/fim/completions", COMPLETIONS),
    ("/agents/completions", Route("agents.completions", "unmetered")),
    ("/embeddings", EMBEDDINGS),
    ("/ocr", OCR),
    ("/audio/transcriptions", Route("audio.transcriptions", "metered", "transcription")),
    ("/audio/speech", Route("audio.speech", "metered", "speech")),
    ("/chat/moderations", Route("chat.moderations", "unmetered")),
    ("/moderations", Route("moderations", "unmetered")),
    ("/classifications", Route("classifications", "unmetered")),
    ("/conversations", Route("conversations", "unmetered")),
    ("/files", Route("files", "unmetered")),
    ("/batch/jobs", Route("batches", "unmetered")),
    ("/fine_tuning/jobs", Route("fine_tuning", "unmetered")),
)


def ocr_facts(route: Route, path: str, body: bytes) -> Facts:
    """An image is one page; of a document as many as it asks for, else as many as it may have."""
    parsed = rq.parse_body(body)
    model = rq.checked_model(parsed.get("model"))
    document, pages = as_dict(parsed.get("document")), parsed.get("pages")
    most = len(pages) if type(pages) is list and pages else PAGES_MAX
    if document.get("type") == "image_url":
        most = 1
    size = RequestSize(len(body), generates=False, units={"pages": most})
    if _annotates(parsed):
        size.units["annotated_pages"] = most
    facts = Facts(route, model, False, size, parsed, clampable=False)
    facts.estimate = Usage(units=dict.fromkeys(size.units, 1))
    return facts


def _annotates(body: dict[str, object]) -> bool:
    return any(body.get(f"{part}_annotation_format") for part in ("document", "bbox"))


class OcrReader:
    """Pages processed; as many annotated as the reply says, else all where that was asked for."""

    usage_key = b"usage_info"

    def __init__(self, facts: Facts) -> None:
        self.finished = False
        self._units = facts.size.units
        self._usage: Usage | None = None
        self._model = self._error = ""

    def needs(self, block: bytes) -> int:
        return SKIP

    def ends(self, block: bytes) -> bool:
        return False

    def document(self, document: dict[str, object]) -> None:
        model = as_text(document.get("model"))[:MODEL_CHARS_MAX]
        self._error = error_name(document.get("error"))
        self.fragment(as_dict(document.get("usage_info")), model)

    def marker(self, data: bytes) -> None:
        """A reply is one JSON document."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._model = model or self._model
        if "pages_processed" not in usage:
            return
        pages = as_count(usage["pages_processed"])
        annotated = usage.get("pages_processed_annotation")
        if annotated is None:
            annotated = pages if "annotated_pages" in self._units else 0
        counts = {"pages": pages, "annotated_pages": as_count(annotated)}
        self._usage = Usage(units={name: count for name, count in counts.items() if count})

    def text_bytes(self, document: dict[str, object]) -> int:
        return 0

    def reading(self) -> Reading:
        return Reading(self._usage, self._model, "", self.finished, self._error)


class Mistral(OpenAI):
    """The `mistral` dialect."""

    name = "mistral"
    posts = _POSTS
    usual_clamp_field = "max_tokens"
    asks_usage = False
    endpoints: Mapping[str, Endpoint] = {
        OCR.name: Endpoint(ocr_facts, OcrReader),
        "audio.transcriptions": TRANSCRIPTION,
        "audio.speech": SPEECH,
    }

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        return b""
