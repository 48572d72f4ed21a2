"""ASGI middleware of others around the call path, by import path.

Only where the configuration names some: requests then come through ASGI, and the first of the
list sees them first. Middleware of one provider stands behind that of all, and sees the requests
that are routed to the provider.
"""

import importlib
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.client import Receive, Scope, Send, path_of
from proxy.config import ConfigError
from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.routing import destination
from proxy.state import State
from proxy.wire import MiddlewareEntry, MiddlewareSet

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Factory = Callable[..., App]


def stack(found: MiddlewareSet, app: App, state: Callable[[], State | None]) -> App:
    """The application inside its middleware. Raises ConfigError, one line for the first that
    cannot be made."""
    look_beside(found.directory)
    inner = app
    if found.of_providers:
        inside = {
            name: _wrapped(entries, app, f"providers.{name}.middleware")
            for name, entries in found.of_providers.items()
        }
        inner = _ByProvider(app, inside, state)
    return _wrapped(found.of_all, inner, "middleware")


def check(found: MiddlewareSet) -> None:
    """Import everything and make nothing. Raises ConfigError, one line for each that is wrong."""
    look_beside(found.directory)
    problems = []
    lists = [("middleware", found.of_all)]
    lists += [
        (f"providers.{name}.middleware", found.of_providers[name]) for name in found.of_providers
    ]
    for path, entries in lists:
        for index, entry in enumerate(entries):
            try:
                load(entry, f"{path}[{index}].path")
            except ConfigError as exc:
                problems += exc.problems
    if problems:
        raise ConfigError(problems)


def look_beside(directory: str) -> None:
    if directory and directory not in sys.path:
        sys.path.append(directory)  # last: it hides no package


def _wrapped(entries: Sequence[MiddlewareEntry], app: App, path: str) -> App:
    for index, entry in reversed(list(enumerate(entries))):
        at = f"{path}[{index}]"
        factory = load(entry, f"{at}.path")
        try:
            app = factory(app, **entry.options)
        except Exception as exc:
            raise ConfigError([f"{at}: {entry.path} fails: {_line(exc)}"]) from exc
    return app


def load(entry: MiddlewareEntry, at: str) -> Factory:
    """Raises ConfigError, with one line that begins with `at`."""
    name, colon, attribute = entry.path.partition(":")
    if not (name and colon and attribute):
        raise ConfigError([f"{at}: expected MODULE:NAME, got {entry.path!r}"])
    try:
        module = importlib.import_module(name)
    except Exception as exc:  # whatever a module does when it is imported
        raise ConfigError([f"{at}: cannot import {name}: {_line(exc)}"]) from exc
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError([f"{at}: {name} has no {attribute} that can be called"])
    try:
        inspect.signature(found).bind(None, **entry.options)
    except TypeError as exc:
        options = ", ".join(["app", *(f"{option}=" for option in entry.options)])
        raise ConfigError([f"{at}: {entry.path} cannot be called with ({options}): {exc}"]) from exc
    except ValueError:
        pass  # it has no signature to look at
    factory: Factory = found
    return factory


def _line(exc: BaseException) -> str:
    text = str(exc).strip().partition("\n")[0]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


class _ByProvider:
    """The middleware of the provider that a request is for, if it has any."""

    def __init__(self, app: App, inside: dict[str, App], state: Callable[[], State | None]) -> None:
        self._app, self._inside, self._state = app, inside, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        state = self._state()
        if scope["type"] == "http" and state is not None:
            app = self._inside.get(_provider(scope, state), app)
        await app(scope, receive, send)


def _provider(scope: Scope, state: State) -> str:
    """Its name, "" where the request is for none."""
    head = RequestHead(scope["headers"])
    try:
        found = destination(path_of(scope), scope["query_string"], head, state.provider_names)
    except Refusal:
        return ""
    return found.provider


class CutReplies(logging.Filter):
    """A reply is cut by an exception under ASGI: that is no error of the server's."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, ConnectionAbortedError)
