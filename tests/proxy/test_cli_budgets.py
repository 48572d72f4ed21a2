"""Budgets as the ledger has them; CONFIG gives team/acme/search 0.05 USD in all."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from db.customers import meet
from db.models import Budget
from tests.proxy.cli_runner import CONFIG, Tollkeeper
from tests.proxy.ledger_rows import lease, writing

CHAT = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}
TEAM = "team/acme/search|usd"


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    made = Tollkeeper(tmp_path)
    made.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    return made


def rows(tollkeeper: Tollkeeper, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(tollkeeper.ok(*arguments, "--format", "json"))
    return found


def explained(
    tollkeeper: Tollkeeper, request: object, *options: str, exit_code: int = 0
) -> dict[str, dict[str, Any]]:
    result = tollkeeper.run(
        *("budgets", "explain", "--key", "search-prod", "--request", "-", "--format", "json"),
        *options,
        stdin=json.dumps(request),
    )
    assert result.exit_code == exit_code, result.output
    return {row["name"]: row for row in json.loads(result.stdout)}


def verdict(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (call,) = [row for row in found.values() if row["what"] == "call"]
    return call


def spend(tollkeeper: Tollkeeper, nano: int, *, granted: int, state: str = "open") -> int:
    with writing(tollkeeper.directory) as connection:
        return lease(connection, TEAM, granted=granted, spent=nano, state=state)


def test_list(tollkeeper: Tollkeeper) -> None:
    spend(tollkeeper, 10_000_000, granted=30_000_000)
    by_scope = {row["scope"]: row for row in rows(tollkeeper, "budgets", "list")}
    team = by_scope["team/acme/search"]
    figures = {name: team[name] for name in ("limit", "spent", "leased", "remaining", "resets_at")}
    assert figures == {
        "limit": "0.05",
        "spent": "0.01",
        "leased": "0.02",
        "remaining": "0.04",
        "resets_at": "",
    }
    assert by_scope["user/acme/ann"]["limit"] == 100_000
    assert by_scope["organization/acme"]["resets_at"].endswith("-01T00:00Z")


EACH = """
  - {scope: team/acme/search, limit_usd: 2, period: total, each: customer}
"""


def test_customers_are_a_line_and_listed_when_asked_for(tmp_path: Path) -> None:
    tollkeeper = Tollkeeper(tmp_path, CONFIG.rstrip() + EACH)
    tollkeeper.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    template = "team/acme/search|usd|total|UTC|w0|d1|models=|providers=|each=customer"
    with writing(tmp_path) as connection:
        query = select(Budget.id).where(Budget.identity == template)
        template_id = connection.execute(query).scalar_one()
        meet(connection, [(template_id, f"c-{number}") for number in range(3)], 0)
        lease(connection, f"{template}|customer=c-1", granted=3 * 10**8, spent=2 * 10**8)
    found = [row for row in rows(tollkeeper, "budgets", "list") if row.get("customers")]
    assert [(row["scope"], row["customers"], row["limit"]) for row in found] == [
        ("team/acme/search", 3, "2")
    ]
    top = ("budgets", "list", "--customers", "team/acme/search", "--top", "2")
    assert [(row["scope"], row["spent"], row["leased"]) for row in rows(tollkeeper, *top)] == [
        ("customer/team/acme/search/c-1", "0.2", "0.1"),
        ("customer/team/acme/search/c-0", "0", "0"),
    ]
    wrong = tollkeeper.run("budgets", "list", "--customers", "organization/acme")
    assert wrong.exit_code == 2
    assert "no budget on 'organization/acme' is one for each customer" in wrong.output
    asked = explained(tollkeeper, CHAT, "--customer", "c-1")
    assert asked["customer/team/acme/search/c-1 per total in usd"]["spent"] == "0.2"
    assert "customer" not in "".join(explained(tollkeeper, CHAT))


def test_passes_with_the_hold_itemised(tollkeeper: Tollkeeper) -> None:
    found = explained(tollkeeper, CHAT | {"max_completion_tokens": 100})
    assert verdict(found)["verdict"] == "passes"
    body = len(json.dumps(CHAT | {"max_completion_tokens": 100}))
    assert f"{body + 2048:,} input tokens" in found
    assert "100 output tokens" in found
    budgets = [row for row in found.values() if row["what"] == "budget"]
    assert [row["verdict"] for row in budgets] == ["passes"] * 4
    assert found["user/acme/ann per total in tokens"]["needs"] == body + 2048 + 100


def test_clamped(tollkeeper: Tollkeeper) -> None:
    found = explained(tollkeeper, CHAT)
    assert verdict(found)["clamped_to"] == 4096
    assert "4,096 output tokens" in found


def test_refused_names_the_budget(tollkeeper: Tollkeeper) -> None:
    spend(tollkeeper, 49_000_000, granted=49_000_000)
    found = explained(tollkeeper, CHAT | {"max_completion_tokens": 1000}, exit_code=1)
    assert verdict(found)["blocked_by"] == "team/acme/search"
    assert verdict(found)["verdict"] == "refused"
    assert found["team/acme/search per total in usd"]["verdict"] == "refused"


def test_what_an_open_lease_has_left_is_usable(tollkeeper: Tollkeeper) -> None:
    spend(tollkeeper, 1_000_000, granted=50_000_000)
    found = explained(tollkeeper, CHAT | {"max_completion_tokens": 1000})
    assert verdict(found)["verdict"] == "passes"


def test_what_a_lost_host_has_makes_calls_wait(tollkeeper: Tollkeeper) -> None:
    spend(tollkeeper, 1_000_000, granted=50_000_000, state="lost")
    found = explained(tollkeeper, CHAT | {"max_completion_tokens": 1000})
    assert verdict(found)["verdict"] == "waits"
    assert verdict(found)["blocked_by"] == "team/acme/search"


def test_a_cap_per_call_refuses(tollkeeper: Tollkeeper) -> None:
    request = {"model": "o1-pro", "input": "hi", "max_output_tokens": 5000}
    found = explained(tollkeeper, request, exit_code=1)
    assert verdict(found)["blocked_by"] == "key/search-prod"


def downgrading(tmp_path: Path, asked: str, cheaper: str) -> Tollkeeper:
    """The team's budget names another model in place of those it cannot pay for."""
    line = "{scope: team/acme/search,"
    named = f"{line} on_exhausted: {{downgrade: {{'{asked}': {cheaper}}}}},"
    made = Tollkeeper(tmp_path, CONFIG.replace(line, named))
    made.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    return made


def test_a_spent_budget_names_a_cheaper_model(tmp_path: Path) -> None:
    tollkeeper = downgrading(tmp_path, "gpt-5", "gpt-5-mini")
    request = CHAT | {"model": "gpt-5", "max_completion_tokens": 1000}
    assert verdict(explained(tollkeeper, request))["downgraded_from"] is None
    spend(tollkeeper, 40_000_000, granted=40_000_000)
    found = verdict(explained(tollkeeper, request))
    assert found["name"] == "openai/gpt-5-mini"
    assert found["verdict"] == "passes, instead of gpt-5"
    assert found["downgraded_from"] == "gpt-5"


@pytest.mark.parametrize("other", ["gpt-5", "no-such-model", "gpt-5-mini"])
def test_a_model_that_does_not_help_is_no_way_out(tmp_path: Path, other: str) -> None:
    tollkeeper = downgrading(tmp_path, "gpt-5-m*", other)
    spend(tollkeeper, 49_000_000, granted=49_000_000)
    found = explained(tollkeeper, CHAT | {"max_completion_tokens": 1000}, exit_code=1)
    assert verdict(found)["name"] == "openai/gpt-5-mini"
    assert verdict(found)["verdict"] == "refused"


@pytest.mark.parametrize(
    ("request_", "options", "name"),
    [
        ({"model": "claude-haiku-4-5", "max_tokens": 9, "messages": []}, [], "anthropic"),
        ({"contents": [{"parts": [{"text": "x"}]}]}, ["--model", "gemini-2.5-flash"], "gemini"),
        ({"model": "gpt-5-mini", "input": "x", "max_output_tokens": 9}, [], "openai"),
        ({"model": "text-embedding-3-small", "input": "x"}, [], "openai"),
    ],
)
def test_provider_and_path_are_found(
    tollkeeper: Tollkeeper, request_: dict[str, object], options: list[str], name: str
) -> None:
    found = explained(tollkeeper, request_, *options)
    assert any(key.startswith(f"{name}/") for key in found)


BEDROCK = {"messages": [{"role": "user", "content": [{"text": "x"}]}]}
CLAUDE = {"anthropic_version": "v", "max_tokens": 9, "messages": []}
PROFILE = "arn:aws:bedrock:us-east-1:1:application-inference-profile/p"
CLOUDS = f"""
providers:
  bedrock:
    aws: {{region: us-east-1}}
    models: {{"{PROFILE}": "us.amazon.nova-lite-v1:0"}}
  vertex:
organizations: {{acme: {{teams: {{search: }}}}}}
"""


@pytest.mark.parametrize(
    ("request_", "model", "name"),
    [
        (BEDROCK, "us.amazon.nova-lite-v1:0", "bedrock"),
        (BEDROCK, PROFILE, "bedrock"),
        ({"inputText": "x"}, "amazon.titan-embed-text-v2:0", "bedrock"),
        ({"contents": [{"parts": [{"text": "x"}]}]}, "gemini-2.5-flash", "vertex"),
        ({"instances": [{"content": "x"}]}, "gemini-embedding-001", "vertex"),
        (CLAUDE, "claude-sonnet-4-5@20250929", "vertex"),
    ],
)
def test_calls_to_a_cloud(
    tmp_path: Path, request_: dict[str, object], model: str, name: str
) -> None:
    tollkeeper = Tollkeeper(tmp_path, CLOUDS)
    tollkeeper.ok("keys", "create", "--name", "search-prod", "--team", "acme/search")
    found = explained(tollkeeper, request_, "--model", model)
    assert any(key.startswith(f"{name}/") for key in found), found


@pytest.mark.parametrize(
    ("arguments", "stdin", "exit_code", "message"),
    [
        (["--key", "nobody"], "{}", 2, "no key is named 'nobody'"),
        (["--key", "dev"], "{", 2, "the request is not JSON"),
        (["--key", "dev"], "[]", 2, "not a JSON object"),
        (["--key", "dev"], "{}", 2, "names no model"),
        (["--key", "dev"], '{"model": "nope"}', 2, "no provider prices 'nope'"),
        (["--key", "dev", "--provider", "x"], '{"model": "o3"}', 2, "no provider is called 'x'"),
        (["--key", "dev", "--path", "/v1/videos"], '{"model": "o3"}', 2, "is unmetered"),
        (
            ["--key", "dev", "--provider", "openai"],
            '{"model": "nope", "input": "x"}',
            1,
            "not_priced",
        ),
        (["--key", "dev"], '{"model": "o3", "messages": "x"}', 1, "bad_request"),
    ],
)
def test_explain_refuses(
    tollkeeper: Tollkeeper, arguments: list[str], stdin: str, exit_code: int, message: str
) -> None:
    result = tollkeeper.run("budgets", "explain", "--request", "-", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_revoked_key_is_refused(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("keys", "revoke", "dev")
    result = tollkeeper.run("budgets", "explain", "--request", "-", "--key", "dev", stdin="{}")
    assert result.exit_code == 1
    assert "key_revoked" in result.stderr


def test_leases_and_their_release(tollkeeper: Tollkeeper) -> None:
    epoch = spend(tollkeeper, 1_000_000, granted=50_000_000, state="lost")
    (row,) = rows(tollkeeper, "budgets", "leases")
    assert (row["epoch"], row["state"], row["granted"]) == (epoch, "lost", "0.05")
    tollkeeper.ok("budgets", "release-lease", str(epoch), "--yes")
    assert rows(tollkeeper, "budgets", "leases") == []
    team = next(r for r in rows(tollkeeper, "budgets", "list") if r["scope"] == "team/acme/search")
    assert (team["spent"], team["leased"]) == ("0.001", "0")


def test_the_lease_of_a_running_control_is_not_released(tollkeeper: Tollkeeper) -> None:
    epoch = spend(tollkeeper, 1_000_000, granted=50_000_000)
    result = tollkeeper.run("budgets", "release-lease", str(epoch), "--yes")
    assert result.exit_code == 2
    assert "its control is running" in result.stderr
    assert len(rows(tollkeeper, "budgets", "leases")) == 1


def test_an_unknown_epoch(tollkeeper: Tollkeeper) -> None:
    assert tollkeeper.run("budgets", "release-lease", "99", "--yes").exit_code == 2


# --- raises ---------------------------------------------------------------------------------


def test_a_raise_is_in_force_until_its_day_ends(tollkeeper: Tollkeeper) -> None:
    until = "2999-12-04"
    arguments = ("--by", "0.02", "--until", until, "--reason", "launch")
    said = tollkeeper.run("budgets", "raise", "team/acme/search", *arguments)
    assert said.exit_code == 0, said.output
    assert "0.02 USD more" in said.stderr
    (row,) = rows(tollkeeper, "budgets", "raises")
    assert row["until"] == "2999-12-05T00:00:00Z"
    assert (row["by"], row["reason"], row["in_force"]) == ("0.02", "launch", True)
    (team,) = [
        row for row in rows(tollkeeper, "budgets", "list") if row["scope"] == "team/acme/search"
    ]
    assert (team["limit"], team["raised"], team["remaining"]) == ("0.07", "0.02", "0.07")
    tollkeeper.ok("budgets", "raise", "team/acme/search", "--by=-0.02", "--until", until)
    assert len(rows(tollkeeper, "budgets", "raises")) == 2
    audited = [row for row in rows(tollkeeper, "audit") if row["action"] == "budget.raise"]
    assert [row["after"]["amount"] for row in audited] == [-20_000_000, 20_000_000]
    assert audited[1]["after"]["reason"] == "launch"


def test_one_customers_limit_is_raised(tmp_path: Path) -> None:
    tollkeeper = Tollkeeper(tmp_path, CONFIG.rstrip() + EACH)
    tollkeeper.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    asked = ("budgets", "raise", "team/acme/search", "--by", "3", "--until", "2999-12-04")
    said = tollkeeper.run(*asked, "--customer", "c-1")
    assert "customer/team/acme/search/c-1 per total: 3 USD more" in said.stderr
    (row,) = rows(tollkeeper, "budgets", "raises")
    assert (row["scope"], row["by"]) == ("customer/team/acme/search/c-1", "3")
    top = rows(tollkeeper, "budgets", "list", "--customers", "team/acme/search")
    assert [(row["scope"], row["limit"], row["raised"]) for row in top] == [
        ("customer/team/acme/search/c-1", "5", "3")
    ]
    elsewhere = tollkeeper.run("budgets", "raise", "user/acme/ann", *asked[3:], "--customer", "c-1")
    assert elsewhere.exit_code == 2
    assert "no budget for each customer on 'user/acme/ann'" in elsewhere.output
    wrong = tollkeeper.run(*asked, "--customer", "c 1")
    assert (wrong.exit_code, "letters, digits" in wrong.output) == (2, True)
    neither = tollkeeper.run(*asked, "--unit", "usd")
    assert "say which" in neither.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("team/acme/none", "--by", "1", "--until", "2999-01-01"), "no such budget"),
        (("team/acme/search", "--by", "much", "--until", "2999-01-01"), "an amount in USD"),
        (("user/acme/ann", "--by", "1.5", "--until", "friday"), "a number of tokens"),
        (("team/acme/search", "--by", "1", "--until", "soon"), "expected a date"),
        (("team/acme/search", "--by", "1", "--until", "2020-01-01"), "in the future"),
        (("team/acme/search", "--by=-1", "--until", "friday"), "not more than there is"),
    ],
)
def test_a_raise_that_cannot_be(
    tollkeeper: Tollkeeper, arguments: tuple[str, ...], said: str
) -> None:
    result = tollkeeper.run("budgets", "raise", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
