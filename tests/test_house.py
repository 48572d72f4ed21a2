"""The rules of the house: who imports whom, sizes, one owner per fact, and docs that keep up."""

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from db.models import Base
from proxy.config import Config
from proxy.errors import CODES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pricing", "db", "proxy")

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
SCRIPT_LINES_MAX = 20

# What a worker has no use for, and would pay for in memory and start-up time.
HEAVY = {"aiosqlite", "alembic", "asyncpg", "click", "httpx", "litellm", "rich", "sqlalchemy"}
SHARED = r"proxy\.(wire|config|scopes|windows|errors)"  # modules of proxy/ for both planes
WIRING = r"proxy/(app|cli(_\w+)?|__main__)\.py|proxy/demo/.*"

# files, modules of ours they may import, other packages they may import; the first match decides
IMPORT_RULES = [
    (r"pricing/.*", r"pricing\b.*", r"(?!.)"),
    (r"db/journal\w*\.py", r"(pricing|db\.journal)\b.*|db\.journal\w*", r"msgspec|crc32c"),
    (r"db/.*", r"(pricing|db)\b.*", r"(?!litellm|rich|click).*"),
    (WIRING, r"(pricing|db|proxy)\b.*", r"(?!litellm).*"),
    (r"proxy/control/.*", rf"(pricing|db|proxy\.control)\b.*|{SHARED}", r"(?!litellm|click).*"),
    (
        r"proxy/(providers/.*|[^/]*)",  # the data plane
        r"pricing\b.*|db\.journal\w*|proxy(?!\.(control|demo|app|cli(_\w+)?)\b).*",
        rf"(?!({'|'.join(sorted(HEAVY))})$).*",
    ),
]


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def read(name: str) -> str:
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not there yet")
    return path.read_text()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def strings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


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
    ],
)
def test_import_rules_mean_what_they_say(file: str, target: str, allowed: bool) -> None:
    assert may_import(ROOT / file, target) is allowed


def test_imports_are_found_in_every_form() -> None:
    assert {"db.journal_records", "msgspec"} <= set(imports(ROOT / "proxy/wire.py"))
    assert "proxy.config" in set(imports(Path(__file__)))


def test_a_worker_process_stays_light() -> None:
    if not (ROOT / "proxy/worker.py").exists():
        pytest.skip("proxy/worker.py is not there yet")
    code = "import proxy.worker, sys; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "proxy" in loaded
    assert not loaded & HEAVY


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
        if name_of(path) != "db/models.py" and not name_of(path).startswith("db/migrations/")
        for line, text in strings(path)
        if (match := named.search(text))
    ]
    assert not found, "\n".join(found)


MONEY_MODELS = {"Window", "Lease"}
MONEY_COLUMNS = {"committed", "overage", "granted", "spent"}


def money_writes(tree: ast.AST) -> Iterator[int]:
    """Lines of insert/update/delete on a table with money, or `.values(...)` of its columns."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        targets = {name for arg in node.args for name in re.findall(r"\w+", ast.unparse(arg))}
        if re.search(r"(insert|update|delete)$", called) and targets & MONEY_MODELS:
            yield node.lineno
        keys = {keyword.arg for keyword in node.keywords} | targets
        if re.search(r"\bvalues$", called) and keys & MONEY_COLUMNS:
            yield node.lineno


def test_only_the_ledger_writes_money() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files(*PACKAGES)
        if name_of(path) != "db/ledger.py" and not name_of(path).startswith("db/migrations/")
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
    ],
)
def test_writes_of_money_are_recognised(source: str) -> None:
    assert list(money_writes(ast.parse(source)))


# --- docs keep up --------------------------------------------------------------------------


def config_keys(struct: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        yield field.encode_name
        for part in structs_in(field.type):
            yield from config_keys(part)


def structs_in(kind: object) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for part in getattr(kind, "__args__", ()):
        yield from structs_in(part)


def test_every_config_key_is_documented() -> None:
    text = read("docs/configuration.md")
    missing = {key for key in config_keys(Config) if not re.search(rf"\b{key}\b", text)}
    assert not missing


def test_config_keys_are_found_at_every_depth() -> None:
    assert {"port", "keys", "projects", "limit_usd", "overlays", "base_url"} <= set(
        config_keys(Config)
    )


def test_every_error_code_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", read("docs/errors.md"), re.MULTILINE)
    assert {code: int(status) for code, status in rows} == {
        code: status for code, (status, _) in CODES.items()
    }


def test_every_metric_is_documented() -> None:
    text = read("docs/metrics.md")
    names = {
        value
        for path in python_files("proxy")
        for _, value in strings(path)
        if re.fullmatch(r"tollkeeper_[a-z0-9_]+", value)
    }
    assert not {name for name in names if not re.search(rf"\b{name}(_total)?\b", text)}


@functools.cache
def project() -> dict[str, object]:
    data: dict[str, object] = tomllib.loads(read("pyproject.toml"))["project"]
    return data


def requirement_names(extras: tuple[str, ...]) -> set[str]:
    optional, runtime = project()["optional-dependencies"], project()["dependencies"]
    assert isinstance(optional, dict)
    assert isinstance(runtime, list)
    lists = [runtime, *(optional[extra] for extra in extras)]
    found = [re.match(r"[A-Za-z0-9._-]+", text) for group in lists for text in group]
    return {match[0].lower().replace("_", "-") for match in found if match}


ALL_EXTRAS = ("postgres", "demo", "prices", "dev")


def test_every_dependency_is_justified() -> None:
    text = read("docs/dependencies.md").lower()
    missing = {name for name in requirement_names(ALL_EXTRAS) if f"| `{name}`" not in text}
    assert not missing


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ALL_EXTRAS)]
)
def test_locks_pin_every_dependency_by_hash(lock: str, extras: tuple[str, ...]) -> None:
    text = read(lock)
    entry = r"^([a-z0-9._-]+)==\S+.*((?:\n    --hash=sha256:[0-9a-f]{64}.*)*)"
    entries = re.findall(entry, text, re.MULTILINE)
    assert requirement_names(extras) <= {name for name, _ in entries}
    assert not [name for name, hashes in entries if not hashes]
    assert "://" not in text


def test_links_between_documents_resolve() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")]
    broken = [
        f"{name_of(document)}: {link}"
        for document in documents
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
        if "://" not in link and not (document.parent / link).exists()
    ]
    assert not broken, "\n".join(broken)


def test_the_changelog_has_an_unreleased_section() -> None:
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[:1] == ["[Unreleased]"]


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
