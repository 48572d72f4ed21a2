"""However the bytes of a reply are cut, client and row get the same."""

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.shapes import SHAPES, Shape
from tests.e2e.stage import Stage
from tests.replay_script import frame, head_of, last_chunk, parts_of

SEED = int(os.environ.get("TOLLKEEPER_SEED", "20261121"))
OWN = ("request_id", "at", "duration_ms")  # of each row alone


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    budgets = [{"scope": "organization/acme", "limit_usd": 100}]
    with Stage(tmp_path_factory.mktemp("cuts"), budgets=budgets) as stage:
        yield stage


def what_both_share(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OWN}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("silent", [False, True], ids=["usage", "no usage"])
def test_cuts_change_nothing(stage: Stage, shape: Shape, silent: bool) -> None:
    parts = shape.silent_parts if silent else shape.parts
    stage.begin()
    stage.provider.reply(shape.reply(parts))
    expected = what_both_share(stage.row(stage.call(shape)))
    plain = shape.reply(parts)
    body = b"".join(frame(plain.framing, part) for part in parts_of(plain))
    whole = head_of(plain) + body + last_chunk(plain.framing)
    chance = random.Random(f"{SEED} {shape}")

    for count in (1, 3, 10, 100, len(whole)):
        cuts = range(len(whole)) if count == len(whole) else chance.sample(range(len(whole)), count)
        stage.provider.reply(shape.reply(parts, cuts=cuts))
        answer = stage.call(shape)
        assert answer.content == b"".join(parts)
        assert what_both_share(stage.row(answer)) == expected, (SEED, count)


def test_the_books_are_right(stage: Stage) -> None:
    assert stage.app.findings() == []
