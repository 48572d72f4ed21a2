"""Amazon Bedrock's runtime: the model and a verb end the path."""

import re
from collections.abc import Mapping, Sequence

from msgspec import json

from pricing.names import plain_model
from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Meter, Route
from proxy.providers.bedrock_meter import (
    ECHOED_TIER,
    HEADER_COUNTS,
    REQUESTED_TIER,
    ConverseReader,
    InvokeReader,
    MessageMeter,
)
from proxy.providers.bedrock_requests import (
    clamped,
    converse_facts,
    converse_limits,
    family_of,
    invoke_facts,
    unpriced,
)
from proxy.providers.event_stream import message
from proxy.providers.meters import JsonMeter, Reader

CONVERSE = Route("converse", "metered", "chat")
CONVERSE_STREAM = Route("converse-stream", "metered", "chat")
INVOKE = Route("invoke", "metered", "chat")
INVOKE_STREAM = Route("invoke-with-response-stream", "metered", "chat")

_VERBS: dict[str, Route] = {
    "converse": CONVERSE,
    "converse-stream": CONVERSE_STREAM,
    "invoke": INVOKE,
    "invoke-with-response-stream": INVOKE_STREAM,
    "count-tokens": Route("count-tokens", "free"),
    "async-invoke": Route("async-invoke", "unmetered"),
}
_POSTS: rq.Posts = (
    ("/async-invoke", Route("async-invoke", "unmetered")),
    ("/apply", Route("guardrail.apply", "unmetered")),
)
_MODELS = (
    "us.amazon.nova-lite-v1%3A0",
    "amazon.nova-lite-v1:0",
    "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.amazon.nova-lite-v1%3A0",
)
_EXAMPLES = ("/async-invoke", "/async-invoke/arn%3Aaws%3Abedrock")

_parts_of = re.compile(r"(?:^|.*?/)model/(.+)/([a-z-]+)").fullmatch
_TIER_HEADER = b"x-amzn-bedrock-service-tier"
_LATENCY_HEADER = b"x-amzn-bedrock-performanceconfig-latency"
_REPLY_NOTED = {
    **{name.encode(): name for name in HEADER_COUNTS},
    _TIER_HEADER: ECHOED_TIER,
    b"x-amzn-requestid": "x-amzn-requestid",
    b"x-amzn-errortype": "x-amzn-errortype",
}


class Bedrock:
    """The `bedrock` dialect. `models`: what is behind names that do not tell it, such as the ARNs
    of application inference profiles."""

    name = "bedrock"
    credential_header = "authorization"
    spent_status = 429

    def __init__(self, clamp_field: str = "", models: Mapping[str, str] | None = None) -> None:
        self.clamp_field = clamp_field or "inferenceConfig.maxTokens"
        self._models = models or {}

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        if method == "POST" and path.startswith("/"):
            end = rq.path_end(path)
            parts = _parts_of(end) if end is not None else None
            if parts is not None:
                return _VERBS.get(parts[2], rq.OTHER)
        return rq.route_by_end(_POSTS, method, path)

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        verbs = tuple(
            ("POST", f"/model/{model}/{verb}", route)
            for verb, route in _VERBS.items()
            for model in _MODELS
        )
        guardrail = ("POST", "/guardrail/g/version/1/apply", _POSTS[1][1])
        return (*verbs, guardrail, *rq.route_table(_POSTS[:1], "", _EXAMPLES))

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        parts = _parts_of(rq.path_end(path) or "")
        if parts is None:
            raise rq.bad("the path names no model: use /model/MODEL/converse")
        model = rq.checked_model(plain_model(self._models.get(parts[1], parts[1])))
        parsed = rq.parse_body(body)
        if not parsed:
            raise rq.bad("the request body is an empty object: send the model's input")
        stream = route is CONVERSE_STREAM or route is INVOKE_STREAM
        facts = Facts(route, model, stream, RequestSize(len(body)), parsed)
        if _is_converse(route):
            converse_facts(facts, parsed)
        else:
            invoke_facts(facts, parsed, family_of(model, parsed))
        if ":prompt/" in parts[1]:  # a stored prompt: the body holds its variables only
            facts.size.windowed = True
        return facts

    def request_headers(self, facts: Facts, lines: Sequence[bytes]) -> None:
        """invoke is told in headers what converse is told in its body."""
        if _is_converse(facts.route):
            return
        tiers = set()
        for line in lines:
            name, _, value = line.partition(b": ")
            name, value = name.lower(), value.strip().lower()
            if name == _TIER_HEADER:
                tiers.add(value.decode("latin-1"))
            elif name == _LATENCY_HEADER and value != b"standard":
                raise unpriced("latency-optimised inference")
        if tiers:
            tier = tiers.pop() if len(tiers) == 1 else "auto"
            facts.size.service_tier = facts.provider_options[REQUESTED_TIER] = tier

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        if clamp is None:
            return body
        request = facts.body
        if _is_converse(facts.route):
            limits = converse_limits(request)
        else:
            limits = family_of(facts.model, request).limits
        return rq.with_edits(request, body, clamped(request, limits, clamp))

    # --- replies -------------------------------------------------------------------------

    def reply_headers(self, facts: Facts, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Counts of a body that has none, the tier it was served at, the request's id."""
        for name, value in headers:
            noted = _REPLY_NOTED.get(name)
            if noted is not None:
                facts.provider_options[noted] = value.partition(b":")[0].decode("latin-1")

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        streamed = facts.stream and status < 400
        chunked = not _is_converse(facts.route)
        options = facts.provider_options
        reader: Reader
        reader = InvokeReader(options, streamed=streamed) if chunked else ConverseReader(options)
        if streamed and "json" not in content_type:
            return MessageMeter(reader, chunked=chunked)
        return JsonMeter(reader)

    # --- refusals ------------------------------------------------------------------------

    def refusal_status(self, refusal: Refusal, status: int) -> int:
        """boto3 tries again after any 429, so spent money is 400 here."""
        return 400 if status == 429 and refusal.final else status

    def refusal_headers(self, refusal: Refusal) -> list[tuple[bytes, bytes]]:
        return [(b"x-amzn-errortype", _exception(refusal).encode())]

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        error = {"code": refusal.code, "details": refusal.details}
        return json.encode({"message": refusal.message, "error": error})

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        unavailable = refusal.status == 503
        kind = "serviceUnavailableException" if unavailable else "modelStreamErrorException"
        headers = {
            ":exception-type": kind,
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return message(headers, json.encode({"message": refusal.message}))


def _is_converse(route: Route) -> bool:
    return route is CONVERSE or route is CONVERSE_STREAM


_EXCEPTIONS = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    426: "ValidationException",
    429: "ThrottlingException",
    500: "InternalServerException",
    504: "ModelTimeoutException",
}
_SPENT = frozenset(("budget_exceeded", "cost_cap_exceeded"))


def _exception(refusal: Refusal) -> str:
    """The exception of Bedrock's service model that boto3 raises."""
    if refusal.code in _SPENT:
        return "ServiceQuotaExceededException"
    return _EXCEPTIONS.get(refusal.status, "ServiceUnavailableException")
