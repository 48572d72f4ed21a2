"""What the events of a session mean for its money: which turns begin and end, what may come next.

Sans-IO: messages in, in both directions; turns begin and end in the lanes, which hold the money.
"""

from collections.abc import Callable, Mapping

from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.fields import as_dict, as_text
from proxy.providers.openai_realtime import (
    AUDIO_BYTES_PER_S_MIN,
    DEFAULT_TRANSCRIPTION,
    SECONDS_HELD,
    Event,
    Heard,
    Limit,
    TurnMeter,
    answer_facts,
    client_event,
    delta_of,
    is_above,
    limit_in,
    server_event,
    transcript_facts,
    transcription_in,
)
from proxy.providers.requests import bad
from proxy.realtime_handshake import Asked
from proxy.realtime_turns import ASKED_MAX, Lane, Till

_UPDATES = ("session.update", "transcription_session.update")


class Conversation:
    """The turns of one session. `changed` is called when a hold has come or was refused."""

    def __init__(
        self,
        asked: Asked,
        till: Till,
        changed: Callable[[], None],
        names: Mapping[str, str] | None = None,
    ) -> None:
        """`names`: what calls name -> the model it is."""
        self.fault: Refusal | None = None  # why it must end, whatever money there is
        self._till = till
        self._changed = changed
        self._names = names or {}
        self._model = asked.model
        self._reported = ""  # the model, as the provider names it
        self._limit: Limit = None  # the most that may be in force for the next response
        self._updates = 0  # of the session, sent and not confirmed
        self._transcriber = asked.model if asked.transcribes else DEFAULT_TRANSCRIPTION
        self._seconds = SECONDS_HELD
        self._heard = Heard()
        # Bytes of audio that the next transcription may be of: those since the last commit, and
        # those before it, which may have been on their way.
        self._since_commit = self._before_commit = 0
        self.answers: Lane | None = None
        self.transcripts: Lane | None = None
        if asked.transcribes:
            self.transcripts = Lane(till, self._transcript_facts, changed)
        else:
            self.answers = Lane(till, self._answer_facts, changed)

    async def open(self) -> None:
        """Hold for the first turn. Raises Refusal."""
        for lane in self._lanes():
            await lane.open()

    def _lanes(self) -> list[Lane]:
        return [lane for lane in (self.answers, self.transcripts) if lane is not None]

    def _answer_facts(self) -> Facts:
        return answer_facts(self._names.get(self._model, self._model), self._limit)

    def _transcript_facts(self) -> Facts:
        model = self._names.get(self._transcriber, self._transcriber)
        return transcript_facts(model, self._seconds)

    # --- what may go on

    def verdict(self) -> Refusal | None:
        """Why the session cannot go on."""
        if self.fault is not None:
            return self.fault
        return next((lane.refused for lane in self._lanes() if lane.stuck), None)

    def may_pass(self, event: Event) -> bool:
        """Whether a client's event may go on now: whatever it sets off is held for."""
        if event.kind == "response.create" or event.kind in _UPDATES:
            return all(lane.covered for lane in self._lanes())
        answers, transcripts = self.answers, self.transcripts
        return (answers is None or answers.covered or bool(answers.active)) and (
            transcripts is None or transcripts.covered
        )

    def is_busy(self) -> bool:
        return any(lane.active for lane in self._lanes())

    def close(self, ending: str, *, unused: str = "unused") -> None:
        """The session is over: end every turn and every hold."""
        for lane in self._lanes():
            lane.end_all(ending, unused=unused)

    # --- the client's events

    def client_says(self, message: bytes) -> Event:
        """Take note of an event before it goes on. Raises Refusal: it must not."""
        event = client_event(message)
        if event.kind == "input_audio_buffer.append":
            self._hear(len(as_text(event.body.get("audio"))) * 3 // 4)
            return event
        if event.kind == "response.create":
            self._ask(event)
        elif event.kind in _UPDATES:
            self._update(as_dict(event.body.get("session")))
        text_bytes = self._heard.text_bytes + len(message)
        self._heard = self._heard._replace(text_bytes=text_bytes)
        return event

    def _hear(self, audio_bytes: int) -> None:
        heard = self._heard
        self._heard = heard._replace(audio_bytes=heard.audio_bytes + audio_bytes)
        self._since_commit += audio_bytes
        uncommitted = self._before_commit + self._since_commit
        if uncommitted > self._seconds * AUDIO_BYTES_PER_S_MIN:
            self._seconds = 2 * uncommitted // AUDIO_BYTES_PER_S_MIN
            if self.transcripts is not None:
                self.transcripts.refill()

    def _ask(self, event: Event) -> None:
        if self.answers is None:
            raise bad("this session transcribes only: it has no responses")
        if len(self.answers.asked) >= ASKED_MAX:
            raise Refusal("rate_limited", f"{ASKED_MAX} responses are asked for already.")
        self._raise_limit(as_dict(event.body.get("response")))
        self.answers.asked.append(event.id)
        self.answers.refill()

    def _update(self, session: dict[str, object]) -> None:
        model = session.get("model")
        if self.answers is None and session.get("type") == "realtime":
            raise bad("this session transcribes only: open another one without `intent`")
        if self.answers is not None and model not in (None, self._model, self._reported):
            raise bad("the model of a session cannot be changed: open another one")
        self._raise_limit(session)
        transcriber = transcription_in(session)
        if transcriber is not None:
            self._transcribe(transcriber)
        self._updates += 1

    def _raise_limit(self, fields: dict[str, object]) -> None:
        limit = limit_in(fields)
        if limit != "unsaid" and is_above(limit, self._limit):
            self._limit = limit
            if self.answers is not None:
                self.answers.refill()

    def _transcribe(self, model: str) -> None:
        """Hold for transcriptions from now on; `model` "": whatever it was before."""
        self._transcriber = model or self._transcriber
        if self.transcripts is None:
            self.transcripts = Lane(self._till, self._transcript_facts, self._changed)
        self.transcripts.idle = False
        self.transcripts.refill()

    # --- the provider's events

    def provider_says(self, message: bytes) -> None:
        """Take note of an event before it goes on: turns that end are settled first."""
        event = server_event(message)
        if event is None:
            self._deliver(message)
            return
        kind = as_text(event.get("type"))
        if kind.endswith(("session.created", "session.updated")):
            self._configured(kind, as_dict(event.get("session")))
        elif kind == "response.created":
            self._answer(as_dict(event.get("response")))
        elif kind == "response.done":
            self._answered(as_dict(event.get("response")))
        elif kind == "input_audio_buffer.committed":
            self._committed(as_text(event.get("item_id")))
        elif kind.startswith("conversation.item.input_audio_transcription."):
            self._transcribed(event)
        elif kind == "error":
            self._failed(as_dict(event.get("error")))

    def _deliver(self, message: bytes) -> None:
        response_id = delta_of(message)
        if response_id is not None and self.answers is not None:
            turn = self.answers.active.get(response_id)
            if turn is not None:
                turn.meter.feed(message)

    def _configured(self, kind: str, session: dict[str, object]) -> None:
        self._reported = as_text(session.get("model")) or self._reported
        if kind.endswith("updated") and self._updates:
            self._updates -= 1
        limit = limit_in(session)
        if limit != "unsaid" and (is_above(limit, self._limit) or not self._updates):
            self._limit = limit
            if self.answers is not None:
                self.answers.refill()
        transcriber = transcription_in(session)
        if transcriber is not None:
            self._transcribe(transcriber)
        elif self.transcripts is not None and self.answers is not None and not self._updates:
            self.transcripts.idle = True
            self.transcripts.refill()

    def _answer(self, response: dict[str, object]) -> None:
        if self.answers is None:  # of a model nobody named
            self.fault = Refusal("route_not_metered", "A response in a session that has none.")
            return
        response_id = as_text(response.get("id"))
        meter = TurnMeter(self._reported, response_id, self._heard)
        self.answers.begin(response_id, meter)

    def _answered(self, response: dict[str, object]) -> None:
        response_id = as_text(response.get("id"))
        if self.answers is None or response_id not in self.answers.active:
            self._answer(response)
        if self.answers is None:
            return
        meter = self.answers.active[response_id].meter
        meter.answered(response)
        self._heard = Heard(context_tokens=meter.tokens or self._heard.context_tokens)
        self.answers.end(response_id, "upstream_error" if meter.failed else "complete")

    def _committed(self, item_id: str) -> None:
        heard = self._before_commit = self._since_commit
        self._since_commit, self._seconds = 0, SECONDS_HELD
        if self.transcripts is not None and not self.transcripts.idle:
            meter = TurnMeter("", item_id, Heard(audio_bytes=heard, transcribed=True))
            self.transcripts.begin(item_id, meter)

    def _transcribed(self, event: dict[str, object]) -> None:
        item_id = as_text(event.get("item_id"))
        if self.transcripts is None:
            self._transcribe("")
            assert self.transcripts is not None
        if item_id not in self.transcripts.active:
            self.transcripts.begin(item_id, TurnMeter("", item_id, Heard(transcribed=True)))
        meter = self.transcripts.active[item_id].meter
        meter.transcribed(self._transcript_facts(), event)
        self.transcripts.end(item_id, "upstream_error" if meter.failed else "complete")

    def _failed(self, error: dict[str, object]) -> None:
        """An event of the client's was refused: if it asked for a response, none will come."""
        answers, cause = self.answers, as_text(error.get("event_id"))
        if answers is not None and cause in answers.asked:
            answers.asked.remove(cause)
            answers.refill()
        elif answers is not None and not cause and answers.asked:
            answers.asked.pop(0)
            answers.refill()
