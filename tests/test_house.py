"""The rules of the house: who imports whom, sizes, one owner per fact, tests that can fail."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.models import Base
from tests.source_code import (
    PACKAGES,
    ROOT,
    functions,
    name_of,
    parsed,
    python_files,
    read,
    strings,
)

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
SCRIPT_LINES_MAX = 20

# What a worker has no use for, and would pay for in memory and start-up time.
HEAVY = {"aiosqlite", "alembic", "asyncpg", "click", "httpx", "jinja2", "litellm", "rich"}
# What only some workers load, once they need it: for a provider in a cloud, for realtime sessions.
LATE = {
    "proxy/upstream_aws.py": {"botocore"},
    "proxy/upstream_google.py": {"google"},
    "proxy/websocket.py": {"websockets"},
}
HEAVY |= {"boto3", "botocore", "google", "opentelemetry", "requests", "sqlalchemy", "websockets"}
# modules of proxy/ for both planes
SHARED = (
    r"proxy(\.(wire|channel|metrics|config|scopes|windows|errors|call_record"
    r"|alert_kinds|schedules))?"
)
WIRING = r"proxy/(app|serve|cli(_\w+)?|__main__)\.py|proxy/demo/.*"

# files, modules of ours they may import, other packages they may import; the first match decides
IMPORT_RULES = [
    (r"pricing/.*", r"pricing\b.*", r"(?!.)"),
    (
        r"db/journal\w*\.py",
        r"(pricing|db\.journal)\b.*|db\.(journal\w*|pauses)",
        r"msgspec|google_crc32c",
    ),
    (r"db/.*", r"(pricing|db)\b.*", r"(?!litellm|rich|click).*"),
    (WIRING, r"(pricing|db|proxy)\b.*", r"(?!litellm).*"),
    *((re.escape(file), r"proxy\.\w+", "|".join(theirs)) for file, theirs in LATE.items()),
    (r"proxy/control/.*", rf"(pricing|db|proxy\.control)\b.*|{SHARED}", r"(?!litellm|click).*"),
    (
        r"proxy/(providers/.*|[^/]*)",  # the data plane
        r"pricing\b.*|db\.journal\w*|proxy(?!\.(control|demo|app|serve|cli(_\w+)?)\b).*",
        rf"(?!({'|'.join(sorted(HEAVY))})$).*",
    ),
]


# --- who imports whom ----------------------------------------------------------------------


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full module names, `from proxy import wire` as "proxy.wire"."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                submodule = ROOT.joinpath(*module.split("."), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").exists()
                yield f"{module}.{alias.name}" if is_module else module


def may_import(path: Path, target: str) -> bool:
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    _, ours, theirs = next(rule for rule in IMPORT_RULES if re.fullmatch(rule[0], name_of(path)))
    if top in (*PACKAGES, "tests"):
        return re.fullmatch(ours, target) is not None
    return re.fullmatch(theirs, top) is not None


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=name_of)
def test_import_directions(path: Path) -> None:
    wrong = sorted({target for target in imports(path) if not may_import(path, target)})
    assert not wrong, f"{name_of(path)} must not import {', '.join(wrong)}"


@pytest.mark.parametrize(
    ("file", "target", "allowed"),
    [
        ("pricing/money.py", "msgspec", False),
        ("pricing/book.py", "pricing.money", True),
        ("db/ledger.py", "proxy.wire", False),
        ("db/journal.py", "db.models", False),
        ("db/journal.py", "db.journal_records", True),
        ("proxy/call.py", "sqlalchemy.orm", False),
        ("proxy/call.py", "db.models", False),
        ("proxy/call.py", "db.journal_records", True),
        ("proxy/call.py", "proxy.control.leases", False),
        ("proxy/providers/openai.py", "proxy.providers.base", True),
        ("proxy/control/leases.py", "proxy.upstream", False),
        ("proxy/control/leases.py", "proxy.wire", True),
        ("proxy/app.py", "proxy.control.leases", True),
        ("proxy/app.py", "litellm", False),
        ("proxy/server.py", "proxy.client", True),
        ("proxy/client.py", "click", False),
        ("proxy/client.py", "proxy.cli_report", False),
        ("proxy/cli_report.py", "rich", True),
        ("proxy/upstream_aws.py", "botocore", True),
        ("proxy/upstream_google.py", "botocore", False),
        ("proxy/upstream_auth.py", "google", False),
        ("proxy/websocket.py", "websockets.frames", True),
        ("proxy/realtime.py", "websockets.frames", False),
    ],
)
def test_import_rules_mean_what_they_say(file: str, target: str, allowed: bool) -> None:
    assert may_import(ROOT / file, target) is allowed


def test_imports_are_found_in_every_form() -> None:
    assert {"db.journal_records", "msgspec"} <= set(imports(ROOT / "proxy/wire.py"))
    assert "tests.source_code" in set(imports(Path(__file__)))


def test_a_worker_process_stays_light() -> None:
    if not (ROOT / "proxy/worker.py").exists():
        pytest.skip("proxy/worker.py is not there yet")
    code = "import proxy.worker, sys; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "proxy" in loaded
    assert not loaded & (HEAVY - {"click"})  # uvicorn imports click itself


# --- sizes ---------------------------------------------------------------------------------


def test_functions_are_short() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {length} lines"
        for path in python_files(*PACKAGES, "tests")
        if "migrations/versions" not in name_of(path)  # a revision is one list of tables
        for node in functions(parsed(path))
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_modules_are_short() -> None:
    sizes = {name_of(path): path.read_text().count("\n") for path in python_files(*PACKAGES)}
    assert not {name: size for name, size in sizes.items() if size > MODULE_LINES_MAX}


def test_scripts_are_short_and_strict() -> None:
    scripts = sorted((ROOT / "scripts").iterdir())
    assert scripts
    for script in scripts:
        lines = script.read_text().splitlines()
        assert lines[0] == "#!/bin/sh", script.name
        assert lines[1].startswith("# "), f"{script.name} says what it does"
        assert "set -eu" in lines, script.name
        assert len(lines) < SCRIPT_LINES_MAX, script.name
        assert os.access(script, os.X_OK), script.name


def test_live_tests_run_only_when_asked_for() -> None:
    assert '-m "not live"' in read("scripts/test")
    assert "TOLLKEEPER_LIVE" in read("tests/live/test_live.py")
    runners = [*(ROOT / "scripts").iterdir(), ROOT / "Makefile", ROOT / ".ci/run"]
    asking = [path for path in runners if "TOLLKEEPER_LIVE" in path.read_text()]
    assert asking == [ROOT / "scripts/live"]
    assert not re.search(r"\blive\b", read(".ci/run"))


def test_make_targets_are_the_scripts() -> None:
    match = re.search(r"^TARGETS = (.+)$", read("Makefile"), re.MULTILINE)
    assert match
    assert sorted(match[1].split()) == sorted(path.name for path in (ROOT / "scripts").iterdir())


# --- one owner per fact --------------------------------------------------------------------


def test_table_names_are_written_in_the_models_alone() -> None:
    tables = set(Base.metadata.tables)
    assert tables
    named = re.compile(rf"\b({'|'.join(sorted(tables))})\b")
    found = [
        f"{name_of(path)}:{line}: {match[0]}"
        for path in python_files(*PACKAGES)
        if not name_of(path).startswith(("db/models", "db/migrations/"))
        for line, text in strings(path)
        if (match := named.search(text))
    ]
    assert not found, "\n".join(found)


LEDGER = re.compile(r"db/(ledger\w*|statements)\.py|db/migrations/.*")
MONEY_TABLE = re.compile(r"\b(Window|Lease)(s|Row)?\b|\b_?(WINDOW|LEASE)S?\b")
MONEY_COLUMNS = {"committed", "overage", "granted", "spent"}


def calls_of(tree: ast.AST, pattern: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.search(pattern, ast.unparse(node.func)):
            yield node


def column_names(call: ast.Call) -> set[str]:
    positional = {word for arg in call.args for word in re.findall(r"\w+", ast.unparse(arg))}
    return positional | {keyword.arg or "" for keyword in call.keywords}


def money_writes(tree: ast.AST) -> set[int]:
    """Lines of statements that write a table with money, other columns of it apart."""
    values = list(calls_of(tree, r"\bvalues$"))
    harmless = {
        part
        for call in values
        if call.keywords and not column_names(call) & MONEY_COLUMNS
        for part in ast.walk(call.func)
    }
    writes = {
        call.lineno
        for call in calls_of(tree, r"\b(insert|update|delete)$")
        if call not in harmless and any(MONEY_TABLE.search(ast.unparse(arg)) for arg in call.args)
    }
    return writes | {call.lineno for call in values if column_names(call) & MONEY_COLUMNS}


def test_only_the_ledger_writes_money() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files(*PACKAGES)
        if not LEDGER.fullmatch(name_of(path))
        for line in money_writes(parsed(path))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "update(models.Lease).where(x)",
        "insert(Window)",
        "update(table).values(spent=1)",
        "update(table).values({'committed': 1})",
        "sqlite.insert(Lease)",
        "delete(_WINDOWS)",
    ],
)
def test_writes_of_money_are_recognised(source: str) -> None:
    assert money_writes(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "update(Window).where(x).values(extra=1)",
        "update(Budget)",
        "select(Lease.spent)",
        "reserved.update(state.window for state in states)",
    ],
)
def test_other_statements_are_not(source: str) -> None:
    assert not money_writes(ast.parse(source))


# --- every supported Python ----------------------------------------------------------------


def test_no_pattern_has_possessive_or_atomic_groups() -> None:
    """Python before 3.11.5, Debian 12's among them, matches them wrongly; `x*+` is sound."""
    wrong = re.compile(r"\)[*+?]\+|\(\?>")
    found = [
        f"{name_of(path)}:{call.lineno}"
        for path in python_files(*PACKAGES)
        for call in calls_of(parsed(path), r"^re\.\w+$")
        if wrong.search(ast.unparse(call))
    ]
    assert not found


# --- tests can fail ------------------------------------------------------------------------


def called_names(node: ast.AST) -> set[str]:
    return {
        ast.unparse(call.func).split(".")[-1]
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
    }


def checks(node: ast.AST, helpers: set[str]) -> bool:
    own = any(isinstance(part, ast.Assert) for part in ast.walk(node))
    return own or bool(called_names(node) & helpers)


def checking_helpers() -> set[str]:
    """Names of functions under tests/ that assert, directly or through another of them."""
    helpers = {"raises", "warns", "fail"}
    found = [node for path in python_files("tests") for node in functions(parsed(path))]
    while True:
        more = {node.name for node in found if checks(node, helpers)} - helpers
        if not more:
            return helpers
        helpers |= more


def test_every_test_checks_something() -> None:
    helpers = checking_helpers()
    idle = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in python_files("tests")
        if path.name.startswith("test_")
        for node in functions(parsed(path))
        if node.name.startswith("test_") and not checks(node, helpers)
    ]
    assert not idle, "\n".join(idle)
