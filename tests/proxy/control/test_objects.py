"""Questions about what providers keep, and calls that are settled later."""

from collections.abc import Iterable

import pytest

from db.journal_records import Window
from db.ledger_types import FoundObject, Settled
from db.writer import Flush
from proxy.control.objects import ASKS_MAX, KEEP_MS, LOOK_S, WAIT_S, Objects
from proxy.wire import Answer, Ask


class Ledger:
    """Knows files by their names, and what can be settled now."""

    def __init__(self) -> None:
        self.files: dict[str, FoundObject] = {}
        self.open: list[Settled] = []
        self.problems: list[str] = []
        self.looked = 0
        self.tried = 0
        self.forgotten: list[int] = []
        self.away = False

    async def find_object(self, identity: tuple[str, str, str, str]) -> FoundObject | None:
        self._reach()
        return self.files.get("/".join(identity))

    async def settle_open(self) -> tuple[list[Settled], list[str]]:
        self._reach()
        self.looked += 1
        settled, self.open = self.open, []
        problems, self.problems = self.problems, []
        return settled, problems

    async def try_again(self) -> None:
        self.tried += 1

    async def forget_objects(self, before_ms: int) -> int:
        self.forgotten.append(before_ms)
        return 0

    def _reach(self) -> None:
        if self.away:
            raise ConnectionError("away")


class Desk:
    """Objects with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.ledger = Ledger()
        self.refreshed: list[set[Window]] = []
        self.answers: list[Answer] = []
        self.objects = Objects(
            self.ledger, monotonic=lambda: self.now_s, refresh=self._refresh, shared=False
        )

    def _refresh(self, windows: Iterable[Window]) -> None:
        self.refreshed.append(set(windows))

    def ask(self, number: int, name: str = "file-1") -> None:
        ask = Ask(number, "openai", "", "file", name)
        self.objects.on_ask(self.answers.append, ask)


@pytest.fixture
def desk() -> Desk:
    return Desk()


REQUESTS = {"route": "chat.completions"}
FOUND = FoundObject(requests=REQUESTS)


async def test_what_is_known_is_answered_at_once(desk: Desk) -> None:
    desk.ledger.files["openai//file/file-1"] = FOUND
    desk.ask(1)
    await desk.objects.step()
    assert desk.answers == [Answer(1, found=True, requests=REQUESTS)]


async def test_what_is_on_its_way_is_waited_for(desk: Desk) -> None:
    desk.ask(1)
    await desk.objects.step()
    assert desk.answers == []
    desk.ledger.files["openai//file/file-1"] = FOUND
    await desk.objects.step()
    assert desk.answers == [Answer(1, found=True, requests=REQUESTS)]


async def test_what_never_comes_is_said_to_be_unknown(desk: Desk) -> None:
    desk.ask(1)
    await desk.objects.step()
    desk.now_s += WAIT_S
    await desk.objects.step()
    await desk.objects.step()
    assert desk.answers == [Answer(1, found=False)]


async def test_an_outage_answers_everybody(desk: Desk) -> None:
    desk.ask(1)
    desk.ask(2)
    desk.ledger.away = True
    with pytest.raises(ConnectionError):
        await desk.objects.step()
    assert desk.answers == []
    desk.objects.fail()
    assert desk.answers == [Answer(n, found=False, outage=True) for n in (1, 2)]


async def test_questions_are_bounded(desk: Desk) -> None:
    for number in range(ASKS_MAX + 1):
        desk.ask(number)
    assert desk.answers == [Answer(ASKS_MAX, found=False, outage=True)]


async def test_settling_happens_when_told_and_now_and_then(desk: Desk) -> None:
    await desk.objects.step()  # what a former life left
    assert desk.ledger.looked == 1
    await desk.objects.step()
    assert desk.ledger.looked == 1
    desk.objects.on_flush(Flush(b"", 1, {}, {}, finished=False, ready=1))
    await desk.objects.step()
    assert desk.ledger.looked == 2
    desk.now_s += LOOK_S
    await desk.objects.step()
    assert desk.ledger.looked == 3


async def test_a_settling_that_fails_is_tried_again(desk: Desk) -> None:
    desk.ledger.away = True
    with pytest.raises(ConnectionError):
        await desk.objects.step()
    desk.ledger.away = False
    await desk.objects.step()
    assert desk.ledger.looked == 1


async def test_windows_whose_money_moved_are_looked_at_and_overruns_told(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    window = (1, 1_699_999_200)
    call_id = bytes(15) + b"\x07"
    desk.ledger.open = [
        Settled(call_id, nano=5_000_000_000, change=1_000_000_000, windows=[window])
    ]
    desk.ledger.problems = ["call 1234: its table is missing"]
    await desk.objects.step()
    assert {window} in desk.refreshed
    assert desk.ledger.looked == 2  # until nothing is left
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "cannot settle call 1234: its table is missing",
        f"call {call_id.hex()} cost 5 USD, 1 above its ceiling",
    ]


async def test_housekeeping_forgets_what_nobody_refers_to(desk: Desk) -> None:
    await desk.objects.housekeeping(KEEP_MS + 5)
    assert (desk.ledger.tried, desk.ledger.forgotten) == (1, [5])
