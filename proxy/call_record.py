"""What a worker tells control of a call that has ended, where calls are traced: the facts, as
they are. What they are called outside is `proxy/control/otel_names.py`'s business."""

import msgspec
from msgspec import Struct


class CallRecord(Struct, array_like=True, frozen=True):
    """One call. Ids are lower-case hex; times are nanoseconds, -1: there is no such time."""

    trace_id: str
    span_id: str  # of the request that came in
    client_span_id: str  # of the request that went out
    parent_id: str  # of the caller's span; "": it sent none
    sampled: bool
    trace_state: str
    start_ns: int  # unix
    duration_ns: int
    forwarded_ns: int  # since the start; -1: nothing went out
    first_chunk_ns: int  # since it was forwarded, of the reply to a stream
    request_id: str
    method: str
    path: str
    answered: int  # status the client got; 0: none
    status: int  # status of the provider; 0: none
    refusal: str = ""
    refused_scope: str = ""
    error: str = ""
    provider: str = ""
    prices: str = ""  # whose prices: the provider by its usual name
    host: str = ""
    port: int = 0
    route: str = ""
    operation: str = ""
    key: str = ""
    organization: str = ""
    team: str = ""
    project: str = ""
    user: str = ""
    stream: bool = False
    model: str = ""  # as asked for
    priced_model: str = ""  # the price table's entry, "": none
    max_tokens: int = -1
    choices: int = 1
    service_tier: str = ""  # as asked for
    ending: str = ""  # "": nothing was held
    reply_error: bool = False  # an error inside a reply that began well
    response_id: str = ""
    response_model: str = ""
    usage_source: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    billed_tier: str = ""
    cost_nano: int = -1  # -1: no price is known
    price_version: str = ""
    clamped: int = -1


encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(CallRecord).decode
