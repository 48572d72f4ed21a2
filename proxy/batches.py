"""A batch's requests, as far as its admission needs to know them."""

import asyncio
from typing import Any

from proxy.call import Call
from proxy.errors import Refusal
from proxy.objects import Objects, account_of
from proxy.providers.base import Facts
from proxy.providers.batch_lines import parts_of
from proxy.providers.requests import bad


async def read_parts(call: Call, objects: Objects) -> None:
    """Fill in `parts` and `model` of a batch. Raises Refusal."""
    facts = call.facts
    assert facts is not None
    if facts.steps is not None:
        for _ in facts.steps:
            await asyncio.sleep(0)
    if facts.input_file:
        await _find_file(call, facts, objects)
    assert call.arrival is not None
    if models := call.arrival.provider.models:
        facts.parts = tuple((models.get(model, model), size) for model, size in facts.parts)
    for model, _ in facts.parts:
        if not call.arrival.principal.allows_model(model):
            raise Refusal("model_not_allowed", f"The key '{call.key_name}' may not use '{model}'.")
    facts.model = facts.parts[0][0]


async def _find_file(call: Call, facts: Facts, objects: Objects) -> None:
    arrival = call.arrival
    assert arrival is not None
    account = account_of(arrival.provider, arrival.credential)
    requests: Any = await objects.requests_of(arrival.provider, account, facts.input_file)
    name = facts.input_file
    if requests is None:
        raise Refusal(
            "file_not_priced",
            f"The file '{name}' was not uploaded through Tollkeeper to "
            f"'{arrival.provider.name}', so the cost of a batch of it cannot be known. Upload it "
            "again through Tollkeeper, with purpose `batch`.",
            {"file": name},
        )
    if problem := requests.get("problem"):
        raise Refusal(
            "file_not_priced",
            f"The cost of a batch of the file '{name}' cannot be known: {problem}.",
            {"file": name},
        )
    if requests["route"] != facts.input_route:
        raise bad(f"the requests of '{name}' are not for the batch's `endpoint`")
    facts.parts = parts_of(requests)
