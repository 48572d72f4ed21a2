"""The usual chat completion, the short way: decoded into structs that have room for what matters.

Whatever is unusual (content that is not text, tools, searches, usage that is more than plain
counts) does not fit these structs, and takes the long way through `openai.py` and
`openai_meter.py`. Both ways give the same: a test holds them against each other.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, DecodeError, Meta, Struct
from msgspec.json import Decoder

from pricing.usage import RequestSize, Usage
from proxy.providers.base import Facts, Reading, Route
from proxy.providers.fields import COUNT_MAX, MODEL_CHARS_MAX
from proxy.providers.requests import parse_body

Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]

# --- requests ---


class _Message(Struct, gc=False):
    content: str | None = None
    audio: None = None


class _StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class _Request(Struct, gc=False):
    model: Annotated[str, Meta(min_length=1, max_length=MODEL_CHARS_MAX)]
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    service_tier: str | None = None
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    n: Literal[1] | None = None
    reasoning: None = None
    reasoning_effort: None = None
    tools: None = None
    web_search_options: Any = UNSET  # null counts as well, as on the long way
    plugins: Any = UNSET
    search_parameters: Any = UNSET


_decode_request = Decoder(_Request).decode


class PlainFacts(Facts):
    """Facts whose request is parsed whole only for who asks: an edit, an estimate."""

    __slots__ = ("_body",)
    _body: Any

    @property
    def body(self) -> dict[str, object]:
        if type(self._body) is bytes:
            self._body = parse_body(self._body)
        parsed: dict[str, object] = self._body
        return parsed

    @body.setter
    def body(self, body: Any) -> None:
        self._body = body


def plain_request(route: Route, body: bytes) -> Facts | None:
    """The facts of a chat completion, but for what its model's name says."""
    try:
        request = _decode_request(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not (request.web_search_options is request.plugins is request.search_parameters is UNSET):
        return None
    size = RequestSize(len(body), service_tier=request.service_tier or "")
    limit, older = request.max_completion_tokens, request.max_tokens
    size.output_limit = older if limit is None or (older and older > limit) else limit
    stream = request.stream is True
    facts = PlainFacts(route, request.model.removeprefix("models/"), stream, size, body)  # type: ignore[arg-type]
    if stream:
        options = request.stream_options
        facts.wants_usage_chunk = options is not None and options.include_usage is True
    return facts


# --- replies ---


class _InputDetails(Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: Count | None = None
    audio_tokens: Literal[0] | None = None


class _OutputDetails(Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: Count | None = None
    audio_tokens: Literal[0] | None = None
    accepted_prediction_tokens: Literal[0] | None = None
    rejected_prediction_tokens: Literal[0] | None = None


class _Usage(Struct, forbid_unknown_fields=True, gc=False):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Reply(Struct, gc=False):
    usage: _Usage
    model: Annotated[str, Meta(max_length=MODEL_CHARS_MAX)] = ""
    id: str = ""
    service_tier: Literal["default"] | None = None
    error: None = None


_decode_reply = Decoder(_Reply).decode


def plain_reply(body: bytes) -> Reading | None:
    """What a chat completion in one JSON document says."""
    try:
        reply = _decode_reply(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    counts = reply.usage
    inputs, outputs = counts.prompt_tokens_details, counts.completion_tokens_details
    cached = (inputs.cached_tokens or 0) if inputs is not None else 0
    reasoning = (outputs.reasoning_tokens or 0) if outputs is not None else 0
    prompt, completion = counts.prompt_tokens, counts.completion_tokens
    if cached > prompt or reasoning > completion or prompt + completion != counts.total_tokens:
        return None
    usage = Usage(prompt, completion, cached, reasoning_tokens=reasoning)
    return Reading(usage, reply.model, reply.id, True)
