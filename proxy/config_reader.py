"""YAML text to configuration structs, naming path and line of everything that is wrong.

The YAML is only composed, never constructed: the declared type of a key decides how its text is
read. So `limit_usd: 0.10` never passes through a float, a team may be called `no`, and a number
may come from `${PORT}`.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

import msgspec.inspect as types
import yaml

from proxy.config import Config, ConfigError

# Their values are never shown, whatever is wrong with them.
SECRET_FIELDS = frozenset(
    {"key", "api_key", "key_sha256", "url", "secret_access_key", "session_token", "client_secret"}
    | {"secret", "password"}
)

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{[^}]*\}?")
_INTEGER = re.compile(r"[+-]?[0-9][0-9_]*\Z")
_DECIMAL = re.compile(r"[+-]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]{1,3})?\Z")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NODES = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a value"}
_NOUNS: dict[type[types.Type], str] = {
    types.BoolType: "true or false",
    types.ListType: "a list",
    types.StructType: "a mapping",
}
_MISSING = object()


class Problems:
    """What was found wrong, by path. Lines are known for every path that was read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[str, int] = {}
        self._found: list[tuple[str, str]] = []

    def add(self, path: str, message: str) -> None:
        self._found.append((path, message))

    def add_check(self, path: str, message: str) -> None:
        """Add what a cross check found, unless reading the same place had failed before."""
        if not any(_related(path, other) for other, _ in self._found):
            self.add(path, message)

    def line(self, path: str) -> int:
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)

    def raise_if_any(self) -> None:
        """Raises ConfigError with all problems in the order of the file."""
        if self._found:
            located = sorted((self.line(path), path, text) for path, text in self._found)
            raise ConfigError([self._render(*problem) for problem in located])

    def _render(self, line: int, path: str, message: str) -> str:
        return f"{self.source}:{line}: {path}: {message}" if path else f"{self.source}: {message}"


def _related(path: str, other: str) -> bool:
    short, long = sorted((path, other), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in ".[")


def compose(text: str, source: str) -> yaml.Node | None:
    """Parse YAML. Raises ConfigError naming line and column; never quotes the text."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        reason = ", ".join(part for part in (exc.context, exc.problem) if part)
        raise ConfigError([f"{source}{where}: not valid YAML: {reason}"]) from exc
    except yaml.YAMLError as exc:  # a character YAML does not allow
        reason = str(getattr(exc, "reason", "unreadable"))
        raise ConfigError([f"{source}: not valid YAML: {reason}"]) from exc
    except RecursionError as exc:
        raise ConfigError([f"{source}: not valid YAML: nested too deep"]) from exc


def read(root: yaml.Node | None, env: Mapping[str, str], problems: Problems) -> Config:
    """Read the composed file; what cannot be read keeps its default and is in `problems`."""
    if root is None:
        return Config()
    config = _Reader(env, problems).read(root, types.type_info(Config), "")
    return config if isinstance(config, Config) else Config()


class _Reader:
    """One method per kind of declared type; each returns a value or _MISSING."""

    def __init__(self, env: Mapping[str, str], problems: Problems) -> None:
        self._env = env
        self._problems = problems

    def read(self, node: yaml.Node, kind: types.Type, path: str) -> Any:
        self._problems.lines.setdefault(path, node.start_mark.line + 1)
        if not node.tag.startswith("tag:yaml.org,2002:") or "/" in node.tag:
            return self._wrong(path, "YAML tags are not supported")
        if _is_null(node):
            return _MISSING
        if isinstance(kind, types.StructType):
            return self._struct(node, kind, path)
        if isinstance(kind, types.DictType):
            return self._dict(node, kind, path)
        return self._list_or_scalar(node, kind, path)

    def _wrong(self, path: str, message: str) -> Any:
        self._problems.add(path, message)
        return _MISSING

    def _struct(self, node: yaml.Node, kind: types.StructType, path: str) -> Any:
        fields = {field.name: field for field in kind.fields}
        values: dict[str, Any] = {}
        for name, child, at in self._items(node, path, kind):
            if name in fields:
                value = self.read(child, fields[name].type, at)
                if value is not _MISSING:
                    values[name] = value
            else:
                self._problems.add(at, f"unknown key{_suggest(name, fields)}")
        for name, field in fields.items():
            if field.required and name not in values:
                values[name] = ""  # every required field is text; the problem is on record
                self._problems.add_check(f"{path}.{name}", "missing")
        return kind.cls(**values)

    def _dict(self, node: yaml.Node, kind: types.DictType, path: str) -> Any:
        out: dict[str, Any] = {}
        for name, child, at in self._items(node, path, kind):
            value = self.read(child, kind.value_type, at)
            if value is _MISSING and isinstance(kind.value_type, types.StructType):
                value = kind.value_type.cls()  # `search:` with nothing below it
            elif _is_null(child):
                self._problems.add(at, f"expected {_expected(kind.value_type)}, got nothing")
            if value is not _MISSING:
                out[name] = value
        return out

    def _list_or_scalar(self, node: yaml.Node, kind: types.Type, path: str) -> Any:
        if isinstance(kind, types.ListType) and isinstance(node, yaml.SequenceNode):
            return self._list(node, kind, path)
        if isinstance(kind, types.ListType) or not isinstance(node, yaml.ScalarNode):
            return self._wrong(path, f"expected {_expected(kind)}, got {_NODES[type(node)]}")
        return self._scalar(node, kind, path)

    def _list(self, node: yaml.SequenceNode, kind: types.ListType, path: str) -> Any:
        out = []
        for index, child in enumerate(node.value):
            at = f"{path}[{index}]"
            value = self.read(child, kind.item_type, at)
            if _is_null(child):
                self._problems.add(at, f"expected {_expected(kind.item_type)}, got nothing")
            if value is not _MISSING:
                out.append(value)
        return out

    def _items(
        self, node: yaml.Node, path: str, kind: types.Type
    ) -> Iterator[tuple[str, yaml.Node, str]]:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(path or "(top level)", f"expected a mapping, got {_NODES[type(node)]}")
            return
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self._wrong(path or "(top level)", f"line {line}: a key must be text")
                continue
            at = f"{path}.{key.value}" if path else key.value
            if key.value in seen:
                self._problems.lines[at] = line
                self._problems.add(at, f"duplicate key, first given on line {seen[key.value]}")
                continue
            seen[key.value] = line
            self._problems.lines[at] = line
            yield key.value, child, at

    def _substitute(self, text: str, path: str) -> str | None:
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            if match[0] == "$${":
                return "${"
            name, default = match[1], match[2]
            if name is None:
                missing = True
                self._wrong(path, "expected ${NAME} or ${NAME:-default}, and $${ for a plain ${")
                return ""
            found = self._env.get(name, "") or default
            if found is None:
                missing = True
                self._wrong(path, f"environment variable {name} is not set")
            return found or ""

        out = _VARIABLE.sub(value, text)
        return None if missing else out

    def _scalar(self, node: yaml.ScalarNode, kind: types.Type, path: str) -> Any:
        text = self._substitute(node.value, path)
        if text is None:
            return _MISSING
        value = _convert(text, kind)
        if value is _MISSING:
            hidden = "${" in node.value or _field(path) in SECRET_FIELDS
            got = "" if hidden else f", got {text!r}"
            return self._wrong(path, f"expected {_expected(kind)}{got}")
        return value


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS


def _field(path: str) -> str:
    return path[path.rfind(".") + 1 :]


def _suggest(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name, known, 1)
    return f", did you mean {close[0]}?" if close else f"; known keys: {', '.join(known)}"


def _convert(text: str, kind: types.Type) -> Any:
    """The value of a scalar, or _MISSING if the text is not of the declared type."""
    if isinstance(kind, types.UnionType):
        if _is_amount(kind):
            return _decimal_text(text)
        return _convert(text, _first(kind))
    if isinstance(kind, types.StrType):
        return text
    if isinstance(kind, types.BoolType):
        return _BOOLEANS.get(text.lower(), _MISSING)
    if isinstance(kind, types.LiteralType):
        return next((value for value in kind.values if str(value) == text), _MISSING)
    return _number(text, kind)


def _number(text: str, kind: types.Type) -> Any:
    if isinstance(kind, types.IntType):
        value: int | float | None = int(text) if _INTEGER.match(text) else None
    else:
        value = float(text) if _DECIMAL.match(text) else None
    return value if value is not None and _within(value, kind) else _MISSING


def _within(value: float, kind: Any) -> bool:
    return (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
    )


def _decimal_text(text: str) -> Any:
    """An amount as plain decimal text, exactly what was written."""
    if not _DECIMAL.match(text):
        return _MISSING
    try:
        return format(Decimal(text), "f")
    except InvalidOperation:
        return _MISSING


def _is_amount(kind: types.UnionType) -> bool:
    return any(isinstance(part, types.FloatType) for part in kind.types)


def _first(kind: types.UnionType) -> types.Type:
    return next(part for part in kind.types if not isinstance(part, types.NoneType))


def _expected(kind: types.Type) -> str:
    if isinstance(kind, types.UnionType):
        return "an amount in USD" if _is_amount(kind) else _expected(_first(kind))
    if isinstance(kind, types.LiteralType):
        return "one of " + ", ".join(str(value) for value in kind.values if value != "")
    if isinstance(kind, (types.IntType, types.FloatType)):
        noun = "a whole number" if isinstance(kind, types.IntType) else "a number"
        return noun + _bounds(kind)
    return _NOUNS.get(type(kind), "text")


def _bounds(kind: types.IntType | types.FloatType) -> str:
    low = f"from {kind.ge:g}" if kind.ge is not None else ""
    low = f"above {kind.gt:g}" if kind.gt is not None else low
    high = f"up to {kind.le}" if kind.le is not None and kind.le < 2**63 - 1 else ""
    return " " + " ".join(part for part in (low, high) if part) if low or high else ""
