"""A program that calls with one package: a job per line comes in, an answer per line goes out.

A job: {"client", "work", "base", "key", "model"}, `work` a method of the client. An answer: what
the method returned, as {"result": ...}, or {"error": {"class", "status", "text"}}. Whatever a
package prints goes to stderr.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

PROMPT = "Where does the rain stay?"
QUESTION = "What is the weather in Spain?"
CITY_RESULT = "rain-in-spain"
TOOL_DESCRIPTION = "The weather in a place."


def weather(place: str) -> str:
    """The weather in a place."""
    assert place == "Spain"
    return CITY_RESULT


def serve(clients: dict[str, Callable[[str, str, str], Any]]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer(clients, json.loads(line)), default=str) + "\n")
        answers.flush()


def answer(clients: dict[str, Callable[[str, str, str], Any]], job: dict[str, str]) -> Any:
    try:
        client = clients[job["client"]](job["base"], job["key"], job["model"])
        return {"result": getattr(client, job["work"])()}
    except Exception as exc:
        return {"error": error(exc)}


def error(exc: BaseException) -> dict[str, Any]:
    """The exception's class, with those it is one of, and the status it or its cause tells."""
    names = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(exc).__mro__]
    told: BaseException | None = exc
    status = None
    while told is not None and status is None:
        found = getattr(told, "status_code", None) or getattr(told, "code", None)
        status = found if isinstance(found, int) else None
        told = told.__cause__ or told.__context__
    return {"classes": names, "status": status, "text": str(exc)}
