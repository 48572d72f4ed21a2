"""Documents keep up with the code: keys, codes, metrics, dependencies, links."""

import functools
import json
import re
import tomllib
from collections.abc import Iterator

import msgspec
import pytest

from proxy.config import Config
from proxy.errors import CODES
from tests.source_code import ROOT, name_of, python_files, read, strings


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


def test_every_variable_of_the_tests_is_documented() -> None:
    found = {
        name
        for path in python_files("tests")
        for name in re.findall(r"environ\.get\(\"([A-Z_]+)\"", path.read_text())
    }
    assert {"HYPOTHESIS_PROFILE", "TOLLKEEPER_CORPUS"} <= found
    text = read("docs/testing.md")
    assert not {name for name in found if name not in text}


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


ALL_EXTRAS = ("postgres", "bedrock", "vertex", "otel", "demo", "parquet", "prices", "dev")


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


def test_locks_of_the_compatibility_tests() -> None:
    """Whatever is installed is known by its hash, and comes from wherever packages come from."""
    requirements = re.findall(r"^[\w-]+", read("tests/compat/requirements.in"), re.MULTILINE)
    text = read("requirements-compat.lock")
    entries = re.findall(r"^([\w.-]+)==.*((?:\n    --hash=sha256:[0-9a-f]{64}.*)*)", text, re.M)
    assert set(requirements) <= {name for name, _ in entries}
    assert not [name for name, hashes in entries if not hashes]
    assert "://" not in text
    for folder in ("tests/compat", "tests/compat/agents"):
        packages = json.loads(read(f"{folder}/package-lock.json"))["packages"]
        wanted = json.loads(read(f"{folder}/package.json"))["dependencies"]
        assert packages.pop("")["dependencies"] == wanted
        assert not [name for name, entry in packages.items() if "integrity" not in entry]
        assert not [name for name, entry in packages.items() if "resolved" in entry]


def test_lock_of_the_documentation_site() -> None:
    wanted = re.findall(r"^([\w-]+==\S+)", read("requirements-docs.in"), re.MULTILINE)
    text = read("requirements-docs.lock")
    entries = re.findall(r"^([\w.-]+==\S+).*((?:\n    --hash=sha256:[0-9a-f]{64}.*)*)", text, re.M)
    assert wanted
    assert set(wanted) <= {name for name, _ in entries}
    assert not [name for name, hashes in entries if not hashes]
    assert "://" not in text


LINK = r"\]\(([^)#\s]+)[^)]*\)"


def test_links_between_documents_resolve() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")]
    broken = [
        f"{name_of(document)}: {link}"
        for document in documents
        for link in re.findall(LINK, document.read_text())
        if "://" not in link and not (document.parent / link).exists()
    ]
    assert not broken, "\n".join(broken)


def test_the_changelog_has_an_unreleased_section() -> None:
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[:1] == ["[Unreleased]"]
