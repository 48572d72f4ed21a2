"""The OpenAPI document in the hands of a tool that did not write it: schemathesis makes requests
and judges the answers. `test_openapi` asks what people would; this asks what a schema allows."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from proxy.control.api.endpoints import ENDPOINTS
from proxy.control.api.openapi import document
from tests.proxy.control.api.conftest import ADMIN_KEY

OPERATIONS = [
    each.ok() for each in schemathesis.openapi.from_dict(document(ENDPOINTS)).get_all_operations()
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SETTINGS = settings(
    max_examples=2,  # of each operation: the suite is run often
    phases=[Phase.generate],
    database=None,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def cases_of(operation):
    found = []

    def keep(case):
        found.append(case)

    SETTINGS(given(operation.as_strategy())(keep))()
    return found


@pytest.mark.asyncio(loop_scope="module")
async def test_no_request_is_a_5xx_and_every_answer_is_as_documented(site):
    codes = set()
    for operation in OPERATIONS:
        for case in cases_of(operation):
            asked = case.as_transport_kwargs(base_url="http://control")
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            request = httpx.Request(
                asked["method"],
                asked["url"],
                params=asked.get("params") or None,
                json=asked.get("json"),
                headers=headers,
            )
            answer = await site.admin.send(request)
            case.validate_response(answer, checks=CHECKS)
            codes.add(answer.status_code)
    assert len(OPERATIONS) == len(ENDPOINTS)
    assert {200, 400, 404} <= codes  # it got past the door
