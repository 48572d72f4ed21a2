"""Errors as the admin API answers them: one JSON shape, no traceback, nothing of the database."""

import asyncio
import logging
import re

import msgspec
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.errors import (
    AlreadyThere,
    CatalogError,
    DatabaseError,
    FromConfig,
    NotKnown,
    ReportError,
)
from db.ledger_types import OutcomeUnknown
from pricing.errors import PricingError
from proxy.control.api.table import Failed, Problem
from proxy.control.identity import Denied

log = logging.getLogger(__name__)

HTTP_CODES = {404: "unknown_route", 405: "method_not_allowed"}
_PARAM = re.compile(r"unknown field `([^`]{1,100})`|at `\$\.([^`.\[]{1,100})|field `([^`]{1,100})`")


_REFUSALS: tuple[tuple[type[CatalogError], int, str], ...] = (
    (NotKnown, 404, "not_found"),
    (AlreadyThere, 409, "conflict"),
    (FromConfig, 409, "declared_in_config"),
)


class ApiError(Exception):
    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


def answer_of(error: Exception) -> Response:
    if isinstance(error, Denied):
        headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else {}
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return failed(error.status, error.code, error.message, headers=headers)
    found = _as_api_error(error)
    if found.status == 500:
        log.error("the admin API failed", exc_info=error)
    return failed(found.status, found.code, found.message, found.param)


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, msgspec.ValidationError):
        match = _PARAM.search(str(error))
        return ApiError(400, "invalid_parameter", str(error), match and match[match.lastindex or 0])
    if isinstance(error, CatalogError):
        return _as_refusal(error)
    if isinstance(error, IntegrityError):
        return ApiError(409, "conflict", "somebody else changed it at the same time: try again")
    if isinstance(error, PricingError):
        return ApiError(400, "invalid_prices", str(error))
    if isinstance(error, ReportError):
        return ApiError(400, "invalid_report", str(error))
    if isinstance(error, OutcomeUnknown):
        return ApiError(503, "outcome_unknown", "the ledger went away: look whether it was done")
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return ApiError(503, "too_slow", "took too long: ask for less time, or try again")
    if isinstance(error, (DatabaseError, SQLAlchemyError, OSError)):
        return ApiError(503, "ledger_unavailable", "the ledger is out of reach")
    return ApiError(500, "internal", "internal error, please report it; the log says more")


def _as_refusal(error: CatalogError) -> ApiError:
    for kind, status, code in _REFUSALS:
        if isinstance(error, kind):
            return ApiError(status, code, str(error))
    return ApiError(400, "invalid", str(error))


def bad_cursor() -> ApiError:
    return ApiError(400, "invalid_parameter", "no such cursor: take `next` of a page", "cursor")


def failed(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    *,
    headers: dict[str, str] | None = None,
) -> Response:
    body = msgspec.json.encode(Failed(Problem(code=code, message=message, param=param)))
    return Response(body, status, headers, "application/json")


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Paths and methods that nobody serves."""
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "bad_request")
    headers = dict(error.headers or {})
    return failed(error.status_code, code, str(error.detail), headers=headers)
