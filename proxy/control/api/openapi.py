"""The table as an OpenAPI 3.1 document."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy import __version__
from proxy.control.api.table import PREFIX, Endpoint, Failed, Where

REF = "#/components/schemas/{name}"
ERRORS = {
    "400": "Not understood: `error.param` names the parameter.",
    "401": "No key, or a wrong one.",
    "403": "The key may not do this.",
    "404": "There is no such thing.",
    "429": "Too many wrong keys from this address: come back after `retry-after` seconds.",
    "503": "The ledger is out of reach, or it took too long.",
}
OF_BODIES = {"413": "The body is too large.", "415": "The body is not JSON."}
OF_CHANGES = {"409": "It is declared in the configuration, or it exists already."}
_IN_PATH = re.compile(r"{(\w+)}")


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    answers = [each.answer for each in endpoints]
    requests = [each.request for each in endpoints]
    schemas, components = msgspec.json.schema_components(
        [*answers, *requests, Failed], ref_template=REF
    )
    count = len(endpoints)
    paths: dict[str, Any] = {}
    for endpoint, answer, request in zip(
        endpoints, schemas[:count], schemas[count : 2 * count], strict=True
    ):
        asked = components[request["$ref"].rpartition("/")[2]]
        operation = _operation(endpoint, asked, answer, schemas[-1])
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = operation
    asked_names = {each["$ref"].rpartition("/")[2] for each in schemas[count : 2 * count]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tollkeeper admin API", "version": __version__},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {k: v for k, v in components.items() if k not in asked_names},
        },
    }


def _operation(
    endpoint: Endpoint, asked: dict[str, Any], answer: Any, failed: Any
) -> dict[str, Any]:
    in_path = _IN_PATH.findall(endpoint.path)
    has_body = endpoint.method in ("POST", "PATCH")
    parameters = [
        _parameter(name, schema, name in in_path, name in asked.get("required", ()))
        for name, schema in asked.get("properties", {}).items()
        if name in in_path or not has_body
    ]
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "description": f"For {'viewers' if endpoint.role == 1 else 'the admin'}.",
        "parameters": [each for each in parameters if each["name"] != "tags"],
        "responses": _responses(endpoint, answer, failed),
    }
    if issubclass(endpoint.request, Where):
        operation["parameters"].append(_TAGS)
    if has_body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body(asked, in_path)}},
        }
    return operation


_TAGS = {
    "name": "tags",
    "in": "query",
    "description": "tag:NAME=VALUE, any number of them.",
    "style": "form",
    "explode": True,
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": "^tag:[a-z]{1,20}$"},
        "additionalProperties": {"type": "string"},
    },
}


def _parameter(name: str, schema: Any, in_path: bool, required: bool) -> dict[str, Any]:
    place = "path" if in_path else "query"
    return {"name": name, "in": place, "required": in_path or required, "schema": schema}


def _body(asked: dict[str, Any], in_path: list[str]) -> dict[str, Any]:
    properties = {k: v for k, v in asked.get("properties", {}).items() if k not in in_path}
    required = [name for name in asked.get("required", ()) if name not in in_path]
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _responses(endpoint: Endpoint, answer: Any, failed: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    content |= {media: {} for media in endpoint.also}
    errors = dict(ERRORS)
    if endpoint.method in ("POST", "PATCH"):
        errors |= OF_BODIES
    if endpoint.method != "GET":
        errors |= OF_CHANGES
    said = {
        code: {"description": text, "content": {"application/json": {"schema": failed}}}
        for code, text in sorted(errors.items())
    }
    return {str(endpoint.status): {"description": "Done.", "content": content}, **said}
