"""A request as its struct: everything that is not asked for in the table is refused."""

from typing import Annotated, Any, get_origin

import msgspec
from starlette.requests import Request

from proxy.control.api.failures import ApiError
from proxy.control.api.table import TAG, Endpoint, Where

WITH_BODY = ("POST", "PATCH")
JSON = "application/json"


async def decode(endpoint: Endpoint, request: Request) -> Any:
    """Raises ApiError and msgspec.ValidationError."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(endpoint.request)}
    path = request.path_params
    at = {name: msgspec.convert(path[name], types.pop(name), strict=False) for name in path}
    if endpoint.method in WITH_BODY:
        _refuse_query(request)
        values = await _body(endpoint, request)
        _refuse_unknown(values, types)
    else:
        values = _query(endpoint, request, types)
    _refuse_nul(values)
    lax = endpoint.method not in WITH_BODY
    return msgspec.convert({**values, **at}, endpoint.request, strict=not lax)


def _refuse_query(request: Request) -> None:
    for name in request.query_params:
        raise ApiError(400, "invalid_parameter", f"unknown parameter {name!r}", name)


def _refuse_unknown(values: dict[str, Any], types: dict[str, Any]) -> None:
    """Among them those of the path, which must not come twice."""
    for name in values:
        if name not in types:
            raise ApiError(400, "invalid_parameter", f"unknown field {name!r}", name)


def _query(endpoint: Endpoint, request: Request, types: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    tags: dict[str, Any] | None = {} if issubclass(endpoint.request, Where) else None
    for name, value in request.query_params.multi_items():
        into = values
        if tags is not None and name.startswith(TAG) and name != TAG:
            into = tags
        elif name not in types or name == "tags":
            known = ", ".join(each for each in types if each != "tags") or "none"
            message = f"unknown parameter {name!r}; there are: {known}"
            raise ApiError(400, "invalid_parameter", message, name)
        elif _is_list(types[name]):
            values.setdefault(name, []).append(value)
            continue
        if name in into:
            raise ApiError(400, "invalid_parameter", f"{name!r} is given twice", name)
        into[name] = value
    return {**values, "tags": tags} if tags else values


def _is_list(kind: Any) -> bool:
    """Such a parameter may come several times."""
    if get_origin(kind) is Annotated:
        return _is_list(kind.__origin__)
    return get_origin(kind) in (list, tuple)


async def _body(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise ApiError(415, "unsupported_media_type", f"send a body of type {JSON}")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > endpoint.body_bytes_max:
            message = f"the body is larger than {endpoint.body_bytes_max} bytes"
            raise ApiError(413, "request_too_large", message)
    try:
        values = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApiError(400, "invalid_json", f"the body is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "the body is not a JSON object")
    return values


def _refuse_nul(value: Any, name: str | None = None) -> None:
    """No database takes it in text, nobody means it."""
    if isinstance(value, str) and "\0" in value:
        raise ApiError(400, "invalid_parameter", "text must not hold a NUL character", name)
    if isinstance(value, dict):
        for key, each in value.items():
            _refuse_nul(key, name)
            _refuse_nul(each, name or key)
    elif isinstance(value, list):
        for each in value:
            _refuse_nul(each, name)
