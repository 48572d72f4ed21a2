"""Recorded traffic of Bedrock and Vertex AI, as their dialects see it."""

import base64
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy.errors import Refusal
from proxy.providers.base import Facts, HeaderDialect, Meter, Reading
from proxy.providers.registry import dialect
from tests.corpus import records
from tests.cuts import cut

APIS = (
    *("bedrock_converse", "bedrock_invoke", "bedrock_count"),
    *("gemini_generate", "gemini_count", "vertex_predict"),
)


class Exchange(NamedTuple):
    record: dict[str, Any]
    facts: Facts
    wire: Any

    def body(self) -> bytes:
        return body_of(self.record, "response")

    def meter(self) -> Meter:
        record = self.record
        headers = record["response_headers"]
        assert isinstance(self.wire, HeaderDialect)
        noted = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.wire.reply_headers(self.facts, noted)
        meter: Meter = self.wire.meter(
            self.facts,
            status=record["status"],
            content_type=headers.get("content-type", ""),
            inject_usage=True,
        )
        return meter

    def read(self, at: list[int]) -> tuple[bytes, Reading, bool]:
        """What is passed on, what was read, and whether the end was seen; cut at these offsets."""
        meter = self.meter()
        passed = b"".join(meter.feed(piece) for piece in cut(self.body(), at)) + meter.finish()
        return passed, meter.reading(), meter.ended

    def random_cuts(self) -> list[int]:
        body, chance = self.body(), random.Random(self.record["id"])
        return [chance.randrange(len(body) + 1) for _ in range(1 + len(body) // 200)]


def body_of(record: dict[str, Any], side: str) -> bytes:
    text = record.get(f"{side}_body") or ""
    if record.get(f"{side}_body_base64"):
        return base64.b64decode(text)
    return str(text).encode()


def exchanges(provider: str) -> Iterator[Exchange]:
    """The metered ones; one that the dialect refuses is an error of the provider, too."""
    for record in records(*APIS):
        if record["provider"] != provider:
            continue
        wire = dialect(provider)
        path, _, query = record["path"].partition("?")
        route = wire.route(record["method"], path)
        assert route is not None
        if route.kind != "metered":
            assert record["expected_usage"] is None
            continue
        try:
            facts = wire.facts(route, path, query.encode(), body_of(record, "request"))
        except Refusal:
            assert record["status"] >= 400
            continue
        yield Exchange(record, facts, wire)
