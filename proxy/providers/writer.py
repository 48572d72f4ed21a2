"""Writer: OpenAI's wire format, with chat at `/v1/chat` as well; completions tell no usage, and
their stream is bare values."""

from proxy.providers.base import Facts, Meter
from proxy.providers.fields import as_text
from proxy.providers.host import Host
from proxy.providers.meters import EventMeter, JsonMeter, is_event_stream
from proxy.providers.openai import CHAT, COMPLETIONS, POSTS, OpenAI
from proxy.providers.openai_meter import ChatReader

HOST = Host("writer", "writer", "https://api.writer.com", ("WRITER_API_KEY",), "/v1")


class Writer(OpenAI):
    """The `writer` dialect."""

    name = "writer"
    usual_clamp_field = "max_tokens"
    posts = (*POSTS, ("/v1/chat", CHAT))

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        if facts.route is not COMPLETIONS:
            return super().meter(
                facts, status=status, content_type=content_type, inject_usage=inject_usage
            )
        reader = ValueReader(choices=facts.size.choices)
        if is_event_stream(content_type, expected=facts.stream and status < 400):
            return EventMeter(reader)
        return JsonMeter(reader)


class ValueReader(ChatReader):
    """Completions, whose stream is `{"value": ...}`."""

    def text_bytes(self, document: dict[str, object]) -> int:
        value = as_text(document.get("value"))
        return len(value.encode("utf-8", "replace")) or super().text_bytes(document)
