"""What providers keep for later, on a worker's side: facts are noted in its journal, and what was
noted by anybody is asked of control.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

from db.journal_files import JournalError
from db.journal_records import Note
from proxy.errors import Refusal
from proxy.providers.base import Found
from proxy.state import Provider
from proxy.wire import Answer, Ask, Message

ANSWER_WAIT_S = 10.0  # control answers sooner, or tells of an outage
NOTED_MAX = 4096  # objects remembered as noted, so that polls of a finished one cost nothing

UNREACHABLE = Refusal(
    "ledger_unavailable",
    "What is known of this batch's file cannot be looked up now. Try again in a moment.",
    retry_after_s=5,
)


def account_of(provider: Provider, credential: bytes) -> str:
    """Whose objects these are at the provider: "" of the configured account, however its key is
    rotated; else a name of the caller's own credential."""
    return sha256(credential).hexdigest()[:16] if provider.client_key else ""


class Objects:
    def __init__(
        self,
        send: Callable[[Message], None],
        append: Callable[[Note], None],
        on_problem: Callable[[str, BaseException], None],
    ) -> None:
        self._send = send
        self._append = append
        self._on_problem = on_problem
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        self._noted: OrderedDict[tuple[str, str, str, str, bool], None] = OrderedDict()
        self._gone = False

    def note(self, provider: Provider, account: str, found: Found, at_ms: int) -> None:
        """Journal what was found, once per worker. A journal that takes nothing loses no money:
        what is not settled stays charged at its hold."""
        key = (provider.name, account, found.kind, found.object_id, found.result is not None)
        if found.requests is None and key in self._noted:
            return
        note = Note(provider.name, account, found.kind, found.object_id, at_ms)
        note.requests, note.outputs = found.requests, found.outputs
        if found.result is not None:
            note.result = {
                "groups": [[_names(provider, model), used] for model, used in found.result.groups],
                "source": found.result.source,
                "ending": found.result.ending,
                "total": found.result.total,
            }
        try:
            self._append(note)
        except JournalError as exc:
            self._on_problem(found.object_id, exc)
            return
        self._noted[key] = None
        if len(self._noted) > NOTED_MAX:
            self._noted.popitem(last=False)

    async def requests_of(
        self, provider: Provider, account: str, file_id: str
    ) -> dict[str, object] | None:
        """What bounds the requests of an uploaded file; None: it is not known. Raises Refusal
        `ledger_unavailable`."""
        if self._gone:
            raise UNREACHABLE
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._send(Ask(number, provider.name, account, "file", file_id))
        try:
            answer = await asyncio.wait_for(future, ANSWER_WAIT_S)
        except TimeoutError:
            raise UNREACHABLE from None
        finally:
            del self._asked[number]
        if answer.outage:
            raise UNREACHABLE
        return answer.requests

    def on_answer(self, answer: Answer) -> None:
        future = self._asked.get(answer.ask_id)
        if future is not None and not future.done():
            future.set_result(answer)

    def control_gone(self) -> None:
        self._gone = True
        for number in list(self._asked):
            self.on_answer(Answer(number, found=False, outage=True))


def _names(provider: Provider, model: str) -> list[str]:
    """What a model that a reply names is called in the price table."""
    if not model:
        return []
    return list(provider.price_names(provider.models.get(model, model)))
