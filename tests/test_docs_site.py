"""The documentation site: every page is in its navigation, and recipes are what the tests prove."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compat.agents import AGENTS, Agent
from tests.compat.clients import CLIENTS, EMBEDDERS
from tests.source_code import ROOT, name_of, read
from tests.test_docs import LINK

ORIGIN = "http://127.0.0.1:4000"
KEY = "$TOLLKEEPER_KEY"
RECIPES = "docs/sdks.md"


# --- pages ---------------------------------------------------------------------------------


def site() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(read("mkdocs.yml"))
    return config


def entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from entries(part)


def beside() -> tuple[str, ...]:
    """What `make docs` puts beside the pages."""
    (found,) = re.findall(r"^beside=\"([^\"]+)\"", read("scripts/docs"), re.MULTILINE)
    return tuple(found.split())


def test_every_page_is_in_the_navigation_once() -> None:
    listed = [page for page in entries(site()["nav"]) if not page.startswith(beside())]
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert sorted(listed) == sorted(pages), "mkdocs.yml: nav and docs/*.md differ"


def test_pages_from_beside_docs_are_there() -> None:
    others = [page for page in entries(site()["nav"]) if page.startswith(beside())]
    assert others == ["bench/README.md"]
    assert all((ROOT / path).exists() for path in beside())
    assert "](../docs" not in read("bench/README.md"), "there is no such place on the site"


def test_what_pages_link_to_is_on_the_site() -> None:
    outside = {
        f"{name_of(page)}: {link}"
        for page in (ROOT / "docs").glob("*.md")
        for link in re.findall(LINK, page.read_text())
        if link.startswith("../") and not link.removeprefix("../").startswith(beside())
    }
    assert not outside, "add them to `beside` in scripts/docs"


def test_nothing_is_fetched_from_elsewhere() -> None:
    config = site()
    assert config["theme"]["font"] is False
    (shim,) = config["extra"]["polyfills"]
    assert (ROOT / "docs" / shim["path"]).exists()
    assert "iframe-worker" in shim["path"], "the theme would fetch its own"
    for page in (ROOT / "docs").glob("*.md"):
        assert not re.findall(r"!\[[^]]*\]\(https?:|<(?:img|script|iframe)\b", page.read_text())


def test_tests_that_prove_a_promise_exist() -> None:
    named = re.findall(r"`((?:tests|db)/[\w/.]+)`", read("docs/guarantees.md"))
    assert len(named) > 15
    assert not [path for path in named if not (ROOT / path).exists()]


def test_sources_of_the_comparison() -> None:
    """A statement about another product has a link, and each link is used."""
    text = read("docs/comparison.md")
    used = set(re.findall(r"\]\[([\w-]+)\]", text))
    assert used == set(re.findall(r"^\[([\w-]+)\]: https://\S+$", text, re.MULTILINE))
    tables, _, _ = text.partition("## CPU and memory")
    names = "LiteLLM proxy|Bifrost|Otari|Portkey|TensorZero|agentgateway"
    cells = [
        (row[0], cell)
        for row in re.findall(rf"^\| ({names}) \|(.*)\|$", tables, re.MULTILINE)
        for cell in row[1].split(" | ")
    ]
    assert len(cells) == 6 * (2 + 2 + 1 + 3)
    assert not [(name, cell) for name, cell in cells if "][" not in cell and "not doc" not in cell]


# --- recipes -------------------------------------------------------------------------------


def blocks() -> list[str]:
    """The code of the recipes."""
    return re.findall(r"^```\w+\n(.*?)^```$", read(RECIPES), re.MULTILINE | re.DOTALL)


def urls(text: str) -> set[str]:
    return set(re.findall(rf"{ORIGIN}[^\s\"'`,]*", text))


def importing(package: str) -> str:
    """The code that imports a package, of Python or npm."""
    python = package.replace("-", "_")
    pattern = rf"^(?:from|import) {re.escape(python)}\b|from \"{re.escape(package)}\";$"
    found = [code for code in blocks() if re.search(pattern, code, re.MULTILINE)]
    assert found, f"{RECIPES} does not import {package}"
    return "\n".join(found)


def suffixes() -> dict[str, set[str]]:
    """What base URLs end in, by package, where the packages are driven."""
    found: dict[str, set[str]] = {}
    for client in (*CLIENTS, *EMBEDDERS):
        found.setdefault(client.package, set()).add(client.suffix)
    return found


JAVASCRIPT = [name for name in suffixes() if name.startswith("@")]


@pytest.mark.parametrize("package", JAVASCRIPT)
def test_base_urls_of_javascript(package: str) -> None:
    assert urls(importing(package)) == {ORIGIN + end for end in suffixes()[package]}


def test_base_urls_of_openai_in_javascript() -> None:
    (code,) = [code for code in blocks() if 'from "openai";' in code]
    assert urls(code) == {ORIGIN + end for end in suffixes()["openai"]}


def test_base_urls_of_langchain() -> None:
    code = importing("langchain-openai")
    bases = dict(zip(("OPENAI", "BARE"), re.findall(rf"\"({ORIGIN}\S*)\"", code), strict=True))
    classes = {
        "langchain-openai": ("ChatOpenAI", "OpenAIEmbeddings"),
        "langchain-anthropic": ("ChatAnthropic",),
        "langchain-google-genai": ("ChatGoogleGenerativeAI",),
    }
    for package, names in classes.items():
        (suffix,) = suffixes()[package]
        for name in names:
            (base,) = re.findall(rf"= {name}\(.*base_url=(\w+)", code)
            assert bases[base] == ORIGIN + suffix


def test_base_urls_of_litellm() -> None:
    calls = re.findall(r"model=\"(\w+)/[^\"]+\", api_base=\"([^\"]+)\"", importing("litellm"))
    tested = {
        client.name: ORIGIN + client.suffix for client in CLIENTS if client.package == "litellm"
    }
    assert dict(calls) == tested


def test_base_urls_of_the_official_sdks() -> None:
    """`suffix` in the tables of tests/sdk, read without importing the SDKs."""
    tables = {
        node.target.id: ast.unparse(node.value)
        for node in ast.parse(read("tests/sdk/sdks.py")).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }
    packages = {"_OPENAI": "openai", "_ANTHROPIC": "anthropic", "_GENAI": "google"}
    found = {
        package: re.findall(r"'suffix': '([^']*)'", tables[table])
        for table, package in packages.items()
    }
    for package, ends in found.items():
        (code,) = [
            code
            for code in blocks()
            if re.match(rf"from {package} import (?:OpenAI|Anthropic|genai)\n\n", code)
        ]
        assert urls(code) == {ORIGIN + end for end in ends}


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_what_agents_are_told(agent: Agent, tmp_path: Path) -> None:
    """Their variables and files, as the tests set them up."""
    code = "\n".join(blocks())
    for name, value in agent.environment(ORIGIN, KEY).items():
        told = f"export {name}={value}" in code or (value == KEY and f"`{name}`" in read(RECIPES))
        assert told, name
    agent.configure(tmp_path, ORIGIN)
    for file in tmp_path.rglob("config.toml"):
        for line in filter(None, map(str.strip, file.read_text().splitlines())):
            assert line.startswith("model = ") or line in code, line


def test_what_the_gemini_cli_needs() -> None:
    text = read(RECIPES)
    for part in ('"auth": {"selectedType": "gemini-api-key"}', "~/.gemini/settings.json"):
        assert part in text
    assert '"selectedType": "gemini-api-key"' in read("tests/compat/agents.py")


@pytest.mark.parametrize("package", ["openai", "anthropic", "google.genai", "groq", "cohere"])
def test_sdks_read_the_variables(package: str) -> None:
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)=([^`]+)` \|", read(RECIPES), re.MULTILINE)
    label = {"google.genai": "google genai"}.get(package, package)
    ((_, variable, value),) = [row for row in rows if row[0].lower() == label]
    spec = importlib.util.find_spec(package.partition(".")[0])
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)), *package.split(".")[1:])
    quoted = re.compile(rf"[\"']{variable}[\"']")
    assert [path for path in folder.glob("*.py") if quoted.search(path.read_text())]
    assert value.startswith(ORIGIN)
