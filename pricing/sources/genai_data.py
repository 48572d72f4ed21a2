"""The data of genai-prices as plain lists, dicts, text and decimals.

The package ships it as a Python module: one list of constructor calls. It is parsed, never
executed: a call becomes a dict of its keyword arguments, which is the shape of the project's JSON.
"""

import ast
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pricing.errors import SourceError

_VARIABLE = "providers"


def read(data: bytes) -> list[dict[str, Any]]:
    """The list of providers. Raises SourceError for anything else."""
    try:
        if data.lstrip()[:1] == b"[":
            found = json.loads(data, parse_float=Decimal, parse_constant=_refuse_constant)
        else:
            found = _value(_assigned(ast.parse(data)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"neither JSON nor Python: {error}") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise SourceError("expected a list of providers")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a price")


def _assigned(module: ast.Module) -> ast.expr:
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(each, ast.Name) and each.id == _VARIABLE for each in targets):
            value: ast.expr | None = getattr(node, "value", None)
            if value is not None:
                return value
    raise SourceError(f"no list called {_VARIABLE} in it")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Attribute):  # datetime.timezone.utc
        return None
    raise ValueError(f"line {node.lineno}: unexpected {type(node).__name__}")


def _call(node: ast.Call) -> Any:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    positional = [_value(each) for each in node.args]
    make = _MAKE.get(name)
    if make is not None:
        return make(positional)
    if positional:
        raise ValueError(f"line {node.lineno}: {name} with arguments that have no name")
    return {
        (keyword.arg or "").rstrip("_"): _value(keyword.value)
        for keyword in node.keywords  # `or_` and `and_` are `or` and `and` in JSON
    }


_MAKE: dict[str, Callable[[list[Any]], Any]] = {
    "Decimal": lambda values: Decimal(values[0]),
    "date": lambda values: "{:04}-{:02}-{:02}".format(*values),
    "time": lambda values: "{:02}:{:02}".format(*values[:2]),
}
