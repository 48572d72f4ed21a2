"""docs/configuration.md has one table per struct: exactly its fields, with their defaults."""

import re
from pathlib import Path

import pytest
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from proxy import config
from proxy.config_loader import load

ROOT = Path(__file__).parents[2]

SECTIONS: dict[str, type[Struct]] = {
    "Top level": config.Config,
    "server": config.Server,
    "database": config.Database,
    "journal": config.Journal,
    "retention": config.Retention,
    "admin": config.Admin,
    "admin.viewers[]": config.Viewer,
    "pricing": config.Pricing,
    "pricing.overlays[]": config.Overlay,
    "providers.NAME": config.Provider,
    "providers.NAME.aws": config.Aws,
    "providers.NAME.google": config.Google,
    "providers.NAME.azure": config.Azure,
    "organizations.ORG": config.Organization,
    "teams.TEAM": config.Team,
    "projects.PROJECT": config.Project,
    "users.USER": config.User,
    "keys[]": config.Key,
    "budgets[]": config.Budget,
    "budgets[].customers": config.Customers,
    "budgets[].on_exhausted": config.OnExhausted,
    "log": config.Log,
    "telemetry": config.Telemetry,
    "alerts": config.Alerts,
    "alerts.channels.NAME": config.AlertChannel,
    "alerts.routes[]": config.AlertRoute,
    "alerts.anomalies": config.Anomalies,
    "reports[]": config.Report,
    "middleware[]": config.Middleware,
}


def documented(heading: str) -> dict[str, str]:
    text = (ROOT / "docs/configuration.md").read_text()
    section = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert section, f"no section {heading}"
    return dict(re.findall(r"^\| `(\w+)` \| ?([^|]*?) ?\|", section[1], re.M))


def default(value: object) -> str:
    if value is NODEFAULT:
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if value in ("", None) or isinstance(value, Struct) else f"`{value}`"


@pytest.mark.parametrize("heading", SECTIONS)
def test_section_has_exactly_the_fields_and_their_defaults(heading: str) -> None:
    declared = {
        field.name: "" if field.default_factory is not NODEFAULT else default(field.default)
        for field in fields(SECTIONS[heading])
    }
    assert documented(heading) == declared


def test_every_struct_has_a_section() -> None:
    structs = {
        value
        for value in vars(config).values()
        if isinstance(value, type) and issubclass(value, Struct) and value is not Struct
    }
    assert structs == set(SECTIONS.values())


def test_the_shipped_file_loads_without_any_variable() -> None:
    loaded = load(ROOT / "config.yaml", {})
    assert {provider.api_key for provider in loaded.providers.values()} == {"client"}
    assert len(loaded.budgets) == 4


def test_the_commented_parts_of_the_shipped_file_load_too(tmp_path: Path) -> None:
    text = (ROOT / "config.yaml").read_text().replace('"..."', "ab" * 32)
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"^( +)# (ollama: |keys:|  - \{name)", r"\1\2", text, flags=re.M))
    loaded = load(path, {"SEARCH_PROD_KEY": "secret"})
    assert "ollama" in loaded.providers
    assert len(loaded.organizations["acme"].teams["search"].keys) == 2


def test_the_example_in_the_document_loads(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.S)
    assert example
    (tmp_path / "c.yaml").write_text(example[1])
    load(tmp_path / "c.yaml", {"OPENAI_API_KEY": "a", "SEARCH_PROD_KEY": "b"})
