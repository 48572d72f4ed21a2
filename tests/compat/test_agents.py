"""Coding agents answer, read a file and are refused through Tollkeeper."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.compat.agents import AGENTS, Agent
from tests.compat.answers import RESULT, play_tool, play_whole_responses
from tests.replay import sse_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness

KEY = KEYS["rich"]


@pytest.fixture(params=AGENTS, ids=lambda agent: agent.name)
def agent(request: pytest.FixtureRequest, tollkeeper: Harness) -> Agent:
    chosen: Agent = request.param
    play_whole_responses(tollkeeper.provider)
    return chosen


def calls(agent: Agent, count: int) -> list[str]:
    """What comes in for so many calls."""
    path = agent.api.stream_path.partition("?")[0]
    return [*agent.first, *[f"POST {path}"] * count]


def check_rows(tollkeeper: Harness, agent: Agent, count: int) -> None:
    """One exact row for each call."""
    rows: list[dict[str, Any]] = tollkeeper.rows()
    assert len(rows) == len(tollkeeper.provider.requests) == count
    for row in rows:
        assert (row["provider"], row["model"]) == (agent.api.provider, agent.api.model)
        assert (row["stream"], row["ending"], row["usage_source"]) == (
            *(True, "complete"),
            "reported",
        )
        assert Decimal(row["cost_usd"]) == Decimal(agent.api.cost_nanousd).scaleb(-9)


def test_a_question(tollkeeper: Harness, agent: Agent, tmp_path: Path) -> None:
    done = agent.run(tmp_path, tollkeeper.url, KEY)
    assert done.returncode == 0, done.stderr
    assert replies.TEXT in done.stdout
    assert tollkeeper.received == calls(agent, 1)
    assert KEY not in tollkeeper.provider.requests[0].raw_head.decode()
    check_rows(tollkeeper, agent, 1)


def test_a_tool_is_called_and_answered(tollkeeper: Harness, agent: Agent, tmp_path: Path) -> None:
    play_tool(tollkeeper.provider, agent.tool(tmp_path))
    done = agent.run(tmp_path, tollkeeper.url, KEY)
    assert done.returncode == 0, done.stderr
    assert replies.TEXT in done.stdout
    assert tollkeeper.received == calls(agent, 2)
    first, second = tollkeeper.provider.requests
    assert RESULT not in first.body
    assert RESULT in second.body
    check_rows(tollkeeper, agent, 2)


def test_spent_money_ends_it_at_once(tollkeeper: Harness, agent: Agent, tmp_path: Path) -> None:
    done = agent.run(tmp_path, tollkeeper.url, KEYS["spent"])
    assert done.returncode != 0
    assert agent.says_spent in done.stdout + done.stderr
    assert tollkeeper.received == calls(agent, 1)
    assert not tollkeeper.provider.requests
    assert not tollkeeper.rows()


def test_spent_money_as_402(tollkeeper: Harness, agent: Agent, tmp_path: Path) -> None:
    done = agent.run(tmp_path, tollkeeper.url, KEYS["spent-402"])
    assert done.returncode != 0
    assert "budget" in done.stdout + done.stderr
    assert tollkeeper.received == calls(agent, agent.payment)
    assert not tollkeeper.provider.requests
    assert not tollkeeper.rows()


def test_claude_code_sends_a_broken_stream_again_without_streaming(
    tollkeeper: Harness, tmp_path: Path
) -> None:
    """Both are charged: the provider may bill both."""
    claude = AGENTS[0]
    events = replies.message_events()
    broken = sse_reply(events, reset_after=sum(map(len, events[:4])))
    tollkeeper.provider.on(lambda request: bool(request.json().get("stream")), broken, first=True)
    done = claude.run(tmp_path, tollkeeper.url, KEY)
    assert done.returncode == 0, done.stderr
    assert replies.TEXT in done.stdout
    first, second = tollkeeper.rows()
    assert (first["ending"], first["stream"]) == ("upstream_broken", True)
    assert (second["ending"], second["stream"]) == ("complete", False)
    assert 0 < Decimal(first["cost_usd"]) <= Decimal(first["hold_usd"])


def test_a_wrong_key(tollkeeper: Harness, agent: Agent, tmp_path: Path) -> None:
    done = agent.run(tmp_path, tollkeeper.url, "tk-wrong")
    assert done.returncode != 0
    assert "Tollkeeper key" in done.stdout + done.stderr
    assert tollkeeper.received == calls(agent, agent.wrong_key)
    assert not tollkeeper.provider.requests
    assert not tollkeeper.rows()
