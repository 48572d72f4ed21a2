"""The table as Starlette's routes."""

from collections.abc import Sequence
from functools import cache

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from proxy.control.api.backend import Backend
from proxy.control.api.decoding import JSON, decode
from proxy.control.api.failures import answer_of
from proxy.control.api.table import PREFIX, Caller, Endpoint
from proxy.control.identity import Role

DOCUMENT = f"{PREFIX}/openapi.json"


def routes(backend: Backend, endpoints: Sequence[Endpoint]) -> list[BaseRoute]:
    made: list[BaseRoute] = [_document(backend, endpoints)]
    by_path: dict[str, list[Endpoint]] = {}
    for each in endpoints:
        by_path.setdefault(each.path, []).append(each)
    made += [
        Route(PREFIX + path, _Answering(backend, some).answer, methods=[e.method for e in some])
        for path, some in by_path.items()
    ]
    return made


def caller_of(backend: Backend, request: Request, role: Role) -> Caller:
    """Raises Denied."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    address = request.client.host if request.client is not None else ""
    given = key if scheme.lower() == "bearer" else ""
    identity = backend.authenticator.authenticate(backend.control.config.admin, given, address)
    backend.authenticator.pace(identity)
    identity.authorize(role)
    return Caller(identity, address)


def _document(backend: Backend, endpoints: Sequence[Endpoint]) -> Route:
    @cache
    def encoded() -> bytes:  # when somebody asks: it takes longer than all else of the API
        from proxy.control.api.openapi import document  # noqa: PLC0415

        return msgspec.json.encode(document(endpoints))

    async def openapi(request: Request) -> Response:
        try:
            caller_of(backend, request, Role.VIEWER)
        except Exception as exc:
            return answer_of(exc)
        return Response(encoded(), media_type=JSON)

    return Route(DOCUMENT, openapi, methods=["GET"])


class _Answering:
    """Of one path."""

    def __init__(self, backend: Backend, endpoints: Sequence[Endpoint]) -> None:
        self._backend = backend
        self._endpoints = {each.method: each for each in endpoints}

    async def answer(self, request: Request) -> Response:
        endpoint = self._endpoints["GET" if request.method == "HEAD" else request.method]
        try:
            caller = caller_of(self._backend, request, endpoint.role)
            asked = await decode(endpoint, request)
            found = await endpoint.handler(self._backend, caller, asked)
        except Exception as exc:
            return answer_of(exc)
        if isinstance(found, Response):
            return found
        return Response(msgspec.json.encode(found), endpoint.status, media_type=JSON)
