from pathlib import Path
from typing import get_args

import pytest

from proxy.config import Budget, Config, ConfigError, expires_at_ms
from proxy.config_loader import find, load, personal_key_path, state_dir
from proxy.providers.registry import DIALECT_NAMES, HOSTS
from proxy.windows import PERIODS

SECRET = "tk-very-secret-value"

DESIGN_EXAMPLE = """
server: {host: 127.0.0.1, port: 4000, workers: 1, keep_alive_s: 75, max_body_mb: 100}
database: {url: "sqlite+aiosqlite:///tollkeeper.db"}
journal: {dir: ./journal}
admin: {host: 127.0.0.1, port: 4001, key: "${TOLLKEEPER_ADMIN_KEY}"}
pricing: {unpriced: block}
providers:
  openai: {base_url: "https://api.openai.com", api_key: "${OPENAI_API_KEY}"}
  anthropic: {base_url: "https://api.anthropic.com/", api_key: "${ANTHROPIC_API_KEY}"}
  ollama: {dialect: openai, base_url: "http://127.0.0.1:11434", prices: free}
organizations:
  acme:
    teams:
      search:
        keys:
          - {name: search-prod, key: "${SEARCH_PROD_KEY}"}
        projects:
          ranking: {keys: [{name: ranking-ci, key_sha256: "%s"}]}
budgets:
  - {scope: organization/acme, limit_usd: 500, period: month, timezone: Europe/Berlin}
  - {scope: team/acme/search, limit_usd: 20, period: day, alert_at: [50, 80, 100]}
  - {scope: key/search-prod, limit_usd: 0.50, period: request}
""" % ("ab" * 32)

ENV = {
    "TOLLKEEPER_ADMIN_KEY": "admin-secret",
    "OPENAI_API_KEY": "sk-openai",
    "ANTHROPIC_API_KEY": "sk-ant",
    "SEARCH_PROD_KEY": SECRET,
}

HEAD = """
providers: {openai: {base_url: "http://127.0.0.1:1"}}
organizations:
  acme:
    users: {ann: {email: ann@acme.test}}
    teams:
      search:
        keys: [{name: k, key: tk-very-secret-value, user: bob}]
        projects: {ranking: }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def loaded(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> Config:
    return load(write(tmp_path, text), ENV if env is None else env)


def problems(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> list[str]:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, ENV if env is None else env)
    assert SECRET not in str(caught.value)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def budget(options: str) -> str:
    return f"{HEAD}budgets:\n  - {{{options}}}\n"


def test_design_example_loads(tmp_path: Path) -> None:
    config = loaded(tmp_path, DESIGN_EXAMPLE)
    assert config.providers["openai"].api_key == "sk-openai"
    assert config.providers["openai"].dialect == "openai"
    assert config.providers["anthropic"].base_url == "https://api.anthropic.com"
    assert config.providers["ollama"].prices == "free"
    assert config.organizations["acme"].teams["search"].keys[0].key == SECRET
    assert [b.unit_and_limit() for b in config.budgets] == [
        ("usd", 500 * 10**9),
        ("usd", 20 * 10**9),
        ("usd", 5 * 10**8),
    ]
    assert config.budgets[1].alert_at == [50, 80, 100]


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, DESIGN_EXAMPLE)
    assert config.database.url == f"sqlite+aiosqlite:///{tmp_path}/tollkeeper.db"
    assert config.journal.dir == f"{tmp_path}/journal"
    other = HEAD + "database: {url: 'sqlite+aiosqlite:////var/t.db'}\njournal: {dir: /var/j}\n"
    config = loaded(tmp_path, other)
    assert config.database.url == "sqlite+aiosqlite:////var/t.db"
    assert config.journal.dir == "/var/j"


@pytest.mark.parametrize(
    ("written", "text", "nano"),
    [
        ("0.1", "0.1", 10**8),
        ("0.123456789", "0.123456789", 123456789),
        ("'12.50'", "12.50", 12_500_000_000),
        ("1_000.5", "1000.5", 1_000_500_000_000),
        ("1e3", "1000", 10**12),
        ("0", "0", 0),
    ],
)
def test_amounts_stay_exact(tmp_path: Path, written: str, text: str, nano: int) -> None:
    config = loaded(tmp_path, budget(f"scope: key/k, limit_usd: {written}"))
    assert config.budgets[0].limit_usd == text
    assert config.budgets[0].unit_and_limit() == ("usd", nano)


def test_types_come_from_the_declaration_not_from_yaml(tmp_path: Path) -> None:
    text = """
providers: {openai: {base_url: "http://127.0.0.1:1", api_key: 123}}
organizations: {no: {teams: {2024-01-01: {keys: [{name: on, key: 007}]}}}}
server: {port: "${PORT}", drain_s: 1, workers: "2"}
log: {calls: no}
"""
    config = loaded(tmp_path, text, {"PORT": "8080"})
    assert config.organizations["no"].teams["2024-01-01"].keys[0].key == "007"
    assert config.organizations["no"].teams["2024-01-01"].keys[0].name == "on"
    assert (config.server.port, config.server.workers, config.log.calls) == (8080, 2, False)


def test_substitution(tmp_path: Path) -> None:
    text = """
providers:
  openai: {base_url: "http://${HOST:-127.0.0.1}:1", api_key: "a$${B}${C}${EMPTY:-d}"}
"""
    config = loaded(tmp_path, text, {"C": "c: #x", "EMPTY": ""})
    assert config.providers["openai"].base_url == "http://127.0.0.1:1"
    assert config.providers["openai"].api_key == "a${B}c: #xd"


def test_usual_variables_complete_well_known_providers(tmp_path: Path) -> None:
    text = "providers: {openai: , anthropic: {}, gemini: {}}"
    env = ENV | {"GOOGLE_API_KEY": "g"}
    config = loaded(tmp_path, text, env)
    assert config.providers["gemini"].api_key == "g"
    assert config.providers["gemini"].base_url == "https://generativelanguage.googleapis.com"
    assert config.providers["gemini"].prices == "gemini"
    assert problems(tmp_path, text) == [
        "1: providers.gemini.api_key: missing, and GEMINI_API_KEY or GOOGLE_API_KEY is not set"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not valid YAML"),
        ("server: {port: 1}\nserver: {port: 2}", "2: server: duplicate key, first given on line 1"),
        ("- 1", "(top level): expected a mapping, got a list"),
        ("server: 4000", "1: server: expected a mapping, got a value"),
        ("server: {port: [1]}", "1: server.port: expected a whole number from 0 up to 65535"),
        ("server: {port: 70000}", "server.port: expected a whole number from 0 up to 65535, got"),
        ("server: {drain_s: .inf}", "server.drain_s: expected a number from 0, got '.inf'"),
        ("server: {pord: 1}", "server.pord: unknown key, did you mean port?"),
        ("server: {port: !!python/name:os.x 1}", "server.port: YAML tags are not supported"),
        ("log: {calls: maybe}", "log.calls: expected true or false, got 'maybe'"),
        ("log: {level: loud}", "log.level: expected one of"),
        ("budgets: {a: 1}", "budgets: expected a list, got a mapping"),
        ("budgets: [~]", "budgets[0]: expected a mapping, got nothing"),
        ("zzz: 1", "zzz: unknown key; known keys: server, database"),
        ("admin: {key: '${NOPE}'}", "admin.key: environment variable NOPE is not set"),
        ("admin: {key: '${1x}'}", "admin.key: expected ${NAME} or ${NAME:-default}"),
        ("{a: 1}: 2", "(top level): line 1: a key must be text"),
        ("[" * 3000, "not valid YAML: nested too deep"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_reading_problems(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(tmp_path, text))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("scope: team/acme/serch, limit_usd: 1", "scope: unknown scope 'team/acme/serch', did you"),
        ("scope: nonsense, limit_usd: 1", "the kind is one of organization, team"),
        ("scope: key/k", "budgets[0]: give exactly one of limit_usd"),
        ("scope: key/k, limit_usd: 1, limit_tokens: 2", "found limit_usd and limit_tokens"),
        ("scope: key/k, limit_usd: -1", "limit_usd: expected an amount from 0"),
        ("scope: key/k, limit_usd: ten", "limit_usd: expected an amount in USD, got 'ten'"),
        ("scope: key/k, limit_usd: 0.0000000001", "limit_usd: is finer than"),
        ("scope: key/k, limit_usd: 1e30", "limit_usd: expected an amount from 0 up to 9 billion"),
        ("scope: key/k, limit_tokens: 1.5", "limit_tokens: expected a whole number"),
        ("scope: key/k, limit_usd: 1, period: dayly", "period: expected one of"),
        ("scope: key/k, limit_usd: 1, timezone: Mars/X", "timezone: unknown time zone 'Mars/X'"),
        ("scope: key/k, limit_usd: 1, timezone: ../x", "timezone: unknown time zone '../x'"),
        ("scope: key/k, limit_usd: 1, month_day: 32", "month_day: expected a whole number from 1"),
        ("scope: key/k, limit_usd: 1, week_start: mon", "week_start: expected one of"),
        ("scope: key/k, limit_usd: 1, providers: [opnai]", "providers[0]: no provider is called"),
        ("limit_usd: 1", "budgets[0].scope: missing"),
    ],
)
def test_budget_problems(tmp_path: Path, options: str, expected: str) -> None:
    found = problems(tmp_path, budget(options))
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    "scope",
    [
        "organization/acme",
        "team/acme/search",
        "project/acme/search/ranking",
        "user/acme/ann",
        "user/acme/bob",
        "key/k",
    ],
)
def test_every_kind_of_scope(tmp_path: Path, scope: str) -> None:
    config = loaded(tmp_path, budget(f"scope: {scope}, limit_requests: 3"))
    assert config.budgets[0].unit_and_limit() == ("requests", 3)


def test_same_budget_twice(tmp_path: Path) -> None:
    text = budget("scope: key/k, limit_usd: 1") + "  - {scope: key/k, limit_usd: 2}\n"
    assert problems(tmp_path, text) == ["12: budgets[1]: is the same budget as budgets[0]"]
    loaded(tmp_path, budget("scope: key/k, limit_usd: 1") + "  - {scope: key/k, limit_tokens: 2}\n")


def keys(*entries: str) -> str:
    return (
        "providers: {openai: {base_url: 'http://127.0.0.1:1'}}\n"
        f"organizations: {{acme: {{teams: {{search: {{keys: [{', '.join(entries)}]}}}}}}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (keys(f"{{name: a, key: {SECRET}}}", "{name: a, key: other}"), "keys[1].name: duplicate"),
        (keys(f"{{name: a, key: {SECRET}}}", f"{{name: b, key: {SECRET}}}"), "the same secret as"),
        (keys("{name: a}"), "keys[0]: give exactly one of key and key_sha256"),
        (keys(f"{{name: a, key: {SECRET}, key_sha256: x}}"), "give exactly one of key and"),
        (keys("{name: a, key_sha256: x}"), "key_sha256: expected 64 lower-case hex digits"),
        (keys(f"{{name: a/b, key: {SECRET}}}"), "keys[0].name: a name is 1 to 128"),
        (keys(f"{{name: a, key: {SECRET}, expires: soon}}"), "expires: expected a date"),
        (keys(f"{{name: a, key: {SECRET}, providers: [x]}}"), "no provider is called 'x'"),
        (keys(f"{{key: {SECRET}}}"), "keys[0].name: missing"),
        (keys(f"{{name: a, key: {SECRET}, refusal_status: 500}}"), "expected one of 0, 402, 429"),
    ],
)
def test_key_problems(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("providers: {}", "providers: none declared"),
        ("providers: {x: {dialect: openai}}", "providers.x.base_url: missing"),
        ("providers: {x: {base_url: 'http://h'}}", "providers.x.dialect: missing"),
        ("providers: {x: {base_url: 'http://h', dialect: morse}}", "unknown dialect 'morse'"),
        ("providers: {x: {base_url: 'ftp://h', dialect: openai}}", "base_url: expected http://"),
        ("providers: {x: {base_url: 'http://', dialect: openai}}", "base_url: expected http://"),
        ("providers: {x: {base_url: 'http://h:99999', dialect: openai}}", "base_url: expected"),
        ("providers: {x: {base_url: 'http://u:p@h', dialect: openai}}", "no user name"),
        ("providers: {v1: {base_url: 'http://h', dialect: openai}}", "is a path of the proxy"),
        ("providers: {A b: {base_url: 'http://h', dialect: openai}}", "a provider's name is"),
        (
            "providers: {x: {base_url: 'http://h', dialect: openai, api_key_header: 'a b'}}",
            "api_key_header: expected the name of a header",
        ),
        (HEAD + "server: {port: 4001}", "admin.port: is the same as server.port"),
        (HEAD + "server: {host: 0.0.0.0, port: 4001}", "admin.port: is the same as server.port"),
        (HEAD + "database: {url: 'sqlite:///x.db'}", "database.url: expected sqlite+aiosqlite"),
        (HEAD + "retention: {keep_months: 3}", "retention.keep_months: at least 4: so long"),
        (HEAD + "pricing: {unpriced: ceiling}", "pricing.unpriced_usd_per_mtok: missing"),
        (HEAD + "pricing: {unpriced_usd_per_mtok: free}", "unpriced_usd_per_mtok: expected"),
        (HEAD + "pricing: {overlays: [{discount_percent: 101}]}", "discount_percent: expected"),
        (HEAD + "pricing: {overlays: [{team: no/body}]}", "team: no team is called 'no/body'"),
        (HEAD + "pricing: {overlays: [{prices: {x: 1}}]}", "overlays[0].prices.x: unknown price"),
        (
            HEAD + "pricing: {overlays: [{prices: {input_cost_per_token: -1}}]}",
            "prices.input_cost_per_token: expected a price in USD",
        ),
        (HEAD + "pricing: {overlays: [{prices: {x: }}]}", "prices.x: expected text, got nothing"),
        (HEAD.replace("search:", "a/b:"), "teams.a/b: a name is 1 to 128"),
    ],
)
def test_other_problems(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert expected in found[0]


def test_all_problems_come_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = budget("scope: key/x, limit_usd: 1, period: never") + "server: {port: x}\nnope: 1\n"
    assert [problem.split(": ")[1] for problem in problems(tmp_path, text)] == [
        "budgets[0].period",
        "budgets[0].scope",
        "server.port",
        "nope",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "admin: {key: [tk-very-secret-value]}",
        "database: {url: 'mysql://root:tk-very-secret-value@h/x'}",
        "server: {port: '${SEARCH_PROD_KEY}'}",
        "log: {level: '${SEARCH_PROD_KEY}'}",
        "budgets: [{scope: key/k, limit_usd: '${SEARCH_PROD_KEY}'}]",
    ],
)
def test_no_secret_in_any_problem(tmp_path: Path, line: str) -> None:
    assert problems(tmp_path, HEAD + line)  # `problems` looks for the secret


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, {})
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 3\)"):
        load(tmp_path / "latin.yaml", {})


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(None, {}) is None
    (tmp_path / "config.yaml").touch()
    assert find(None, {}) == Path("config.yaml")
    assert find(None, {"TOLLKEEPER_CONFIG": "x.yaml"}) == Path("x.yaml")
    assert find("y.yaml", {"TOLLKEEPER_CONFIG": "x.yaml"}) == Path("y.yaml")


def test_personal_mode(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path), "OPENAI_API_KEY": "sk", "ANTHROPIC_API_KEY": ""}
    config = load(None, env)
    assert list(config.providers) == ["openai"]
    assert config.server.host == config.admin.host == "127.0.0.1"
    assert config.database.url == f"sqlite+aiosqlite:///{tmp_path}/tollkeeper/tollkeeper.db"
    assert config.organizations["personal"].teams["personal"].keys == []
    path = personal_key_path(state_dir(env))
    path.parent.mkdir()
    path.write_text("cd" * 32)
    (key,) = load(None, env).organizations["personal"].teams["personal"].keys
    assert (key.name, key.key_sha256) == ("personal", "cd" * 32)
    path.write_text("torn")
    with pytest.raises(ConfigError, match="remove it to make a new key"):
        load(None, env)


def test_names_in_the_configuration_are_those_of_the_code() -> None:
    assert set(get_args(Budget.__annotations__["period"])) == set(PERIODS)
    assert {host.dialect for host in HOSTS.values()} <= set(DIALECT_NAMES)


def test_state_dir_default() -> None:
    assert state_dir({"HOME": "/h"}) == Path("/h/.local/state/tollkeeper")


def test_expires_at_ms() -> None:
    assert expires_at_ms("1970-01-01") == 86_400_000 - 1
    assert expires_at_ms("1970-01-01T00:00:01+00:00") == 1000
    assert expires_at_ms("1970-01-01T00:00:01") == 1000
    assert expires_at_ms("1970-01-01T01:00:00+01:00") == 0
