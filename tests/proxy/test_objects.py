"""What providers keep, on a worker's side: notes once each, questions with their answers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from db.journal_files import JournalFull
from db.journal_records import Note
from proxy.errors import Refusal
from proxy.objects import Objects, account_of
from proxy.providers.base import Found, Result
from proxy.wire import Answer, Ask

PROVIDER: Any = SimpleNamespace(
    name="openai", client_key=False, models={"mine": "gpt-5"}, price_names=lambda m: (f"eu/{m}", m)
)
RESULT = Result([("mine", {"input_tokens": 1}), ("", {})])


class Desk:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.notes: list[Note] = []
        self.problems: list[str] = []
        self.full = False
        self.objects = Objects(
            self.sent.append, self._append, lambda id_, exc: self.problems.append(id_)
        )

    def _append(self, note: Note) -> None:
        if self.full:
            raise JournalFull("full")
        self.notes.append(note)

    def note(self, found: Found) -> None:
        self.objects.note(PROVIDER, "", found, 7)


def test_a_result_is_noted_once_under_the_names_of_its_prices() -> None:
    desk = Desk()
    for _ in range(3):
        desk.note(Found("batch", "b1", outputs=["f1"]))
        desk.note(Found("batch", "b1", result=RESULT))
    first, second = desk.notes
    assert (first.provider, first.kind, first.object_id, first.outputs) == (
        "openai", "batch", "b1", ["f1"],
    )  # fmt: skip
    assert second.result == {
        "groups": [[["eu/gpt-5", "gpt-5"], {"input_tokens": 1}], [[], {}]],
        "source": "reported",
        "ending": "complete",
        "total": False,
    }


def test_what_the_journal_does_not_take_is_noted_the_next_time() -> None:
    desk = Desk()
    desk.full = True
    desk.note(Found("batch", "b1", result=RESULT))
    assert (desk.notes, desk.problems) == ([], ["b1"])
    desk.full = False
    desk.note(Found("batch", "b1", result=RESULT))
    assert len(desk.notes) == 1


async def asked(desk: Desk, answer: Answer | None) -> dict[str, object] | None:
    task = asyncio.ensure_future(desk.objects.requests_of(PROVIDER, "", "file-1"))
    await asyncio.sleep(0)
    assert desk.sent == [Ask(1, "openai", "", "file", "file-1")]
    if answer is None:
        desk.objects.control_gone()
    else:
        desk.objects.on_answer(answer)
    return await task


async def test_questions_and_their_answers() -> None:
    assert await asked(Desk(), Answer(1, True, {"parts": []})) == {"parts": []}
    assert await asked(Desk(), Answer(1, False)) is None


@pytest.mark.parametrize("answer", [Answer(1, False, outage=True), None])
async def test_no_answer_is_no_permission(answer: Answer | None) -> None:
    desk = Desk()
    with pytest.raises(Refusal) as refusal:
        await asked(desk, answer)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("ledger_unavailable", 5)
    if answer is None:
        with pytest.raises(Refusal):
            await desk.objects.requests_of(PROVIDER, "", "file-1")


def test_accounts() -> None:
    own: Any = SimpleNamespace(client_key=True)
    assert account_of(PROVIDER, b"authorization: Bearer a") == ""
    assert account_of(own, b"x: a") != account_of(own, b"x: b")
    assert len(account_of(own, b"x: a")) == 16
