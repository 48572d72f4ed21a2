"""A batch outlives every process: `kill -9` between its submission and its settlement, and right
after the reply that each of them hangs on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.batch_provider import BatchProvider, a_failure, a_request, an_answer, lines
from tests.processes import KEY, Serving, wait_for
from tests.replay import ReplayServer

REQUESTS = lines(a_request(1), a_request(2), a_request(3))
ANSWERS = lines(an_answer(1, 10, 4), a_failure(2), an_answer(3, 30, 6))
COST = Decimal(40 * 75 + 10 * 300) / 10**9  # gpt-4o-mini at batch prices, USD


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with ReplayServer() as server:
        yield BatchProvider(server)


def kill_worker(serving: Serving) -> None:
    pid = serving.worker()
    serving.kill_worker()
    wait_for("another worker", lambda: [each for each in serving.workers if each != pid])
    wait_for("ready", lambda: serving.status("/readyz") == 200)


def kill_all(serving: Serving) -> None:
    serving.kill_all()
    serving.start()


def endings(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["ending"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_worker, kill_all])
def test_killed_between_each_of_its_steps(
    tmp_path: Path, provider: BatchProvider, kill: Callable[[Serving], None]
) -> None:
    with Serving(tmp_path, provider.server.url) as serving, ExitStack() as clients:

        def sdk() -> openai.OpenAI:
            url = f"{serving.url}/openai/v1"
            return clients.enter_context(openai.OpenAI(base_url=url, api_key=KEY, max_retries=0))

        file = sdk().files.create(file=("in.jsonl", REQUESTS), purpose="batch")
        kill(serving)
        batch = sdk().batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        kill(serving)
        (row,) = serving.wait_rows(1)
        assert (row["ending"], row["cost_usd"]) == ("open", row["hold_usd"])
        provider.output = ANSWERS
        provider.finish()
        assert sdk().batches.retrieve(batch.id).output_file_id == "file-out"
        kill(serving)
        assert sdk().files.content("file-out").content == ANSWERS
        kill(serving)
        rows = serving.wait_rows(2)
        sdk().files.content("file-out")  # told again, to other processes
        sdk().batches.retrieve(batch.id)
        assert serving.stop() == 0
        rows = serving.rows()
        assert endings(rows) == ["complete", "open"]
        assert sum(Decimal(row["cost_usd"]) for row in rows) == COST
        assert serving.query("SELECT sum(granted - spent) FROM ai_budget_leases") == [(0,)]
        windows = serving.query("SELECT committed, overage FROM ai_budget_windows")
        assert windows == [(int(COST * 10**9), 0)] * len(serving.config["budgets"])
        assert serving.output("verify") == ""
