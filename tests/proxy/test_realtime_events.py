"""What events mean for money, by hand and against a provider that does what it likes."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refusal
from proxy.providers.openai_realtime import Event
from proxy.realtime_events import Conversation
from proxy.realtime_handshake import Asked
from proxy.realtime_turns import ASKED_MAX
from tests.proxy.tills import FakeTill, settled
from tests.realtime import USAGE

AN_HOUR = "A" * (3600 * 48_000 * 4 // 3)


class Talk:
    """A conversation as its session sees it."""

    def __init__(self, money: int = 10, *, transcribes: bool = False, **names: str) -> None:
        self.till = FakeTill(money)
        self.waiting: list[Event] = []
        self.passed: list[Event] = []  # what went on
        asked = Asked("whisper-1" if transcribes else "gpt-realtime", transcribes)
        self.talk = Conversation(asked, self.till, self.advance, names)

    def client(self, kind: str, **fields: Any) -> None:
        message = json.dumps({"type": kind, **fields}).encode()
        self.waiting.append(self.talk.client_says(message))
        self.advance()

    def advance(self) -> None:
        while self.waiting and self.talk.may_pass(self.waiting[0]):
            self.passed.append(self.waiting.pop(0))

    @property
    def sent(self) -> list[str]:
        return [event.kind for event in self.passed]

    def provider(self, kind: str, **fields: Any) -> None:
        self.talk.provider_says(json.dumps({"type": kind, **fields}).encode())

    def limits(self) -> list[int | None]:
        return [hold.facts.size.output_limit for hold in self.till.open]


async def opened(money: int = 10, *, transcribes: bool = False, **names: str) -> Talk:
    talk = Talk(money, transcribes=transcribes, **names)
    await talk.talk.open()
    return talk


def response(name: str, **fields: Any) -> dict[str, Any]:
    return {"response": {"id": name, **fields}}


# --- responses -----------------------------------------------------------------------------


async def test_a_response_asked_for_waits_until_it_is_held_for() -> None:
    talk = await opened(money=2)
    talk.client("response.create")
    assert talk.sent == ["response.create"]  # by what was held from the beginning
    talk.client("response.create", response={"conversation": "none"})
    talk.client("input_audio_buffer.commit")
    assert talk.sent == ["response.create"]
    await settled()
    assert talk.sent == ["response.create"] * 2 + ["input_audio_buffer.commit"]
    talk.client("response.create")
    await settled()
    assert len(talk.waiting) == 1
    assert talk.talk.verdict() is None  # the first two have yet to begin and to end
    talk.provider("response.created", **response("r1"))
    talk.provider("response.created", **response("r2"))
    talk.provider("response.done", **response("r1", usage=USAGE))
    talk.provider("response.done", **response("r2", usage=USAGE))
    await settled()
    assert talk.talk.verdict() is not None


async def test_audio_flows_during_a_response_even_without_money_for_the_next() -> None:
    talk = await opened(money=1)
    talk.provider("response.created", **response("r1"))
    await settled()
    talk.client("input_audio_buffer.append", audio="AAAA")
    assert talk.sent == ["input_audio_buffer.append"]
    talk.provider("response.done", **response("r1", usage=USAGE))
    talk.client("input_audio_buffer.append", audio="AAAA")
    assert len(talk.waiting) == 1


async def test_an_error_takes_back_what_was_asked_for() -> None:
    talk = await opened()
    talk.client("response.create", event_id="e1")
    talk.client("response.create", event_id="e2")
    await settled()
    assert len(talk.till.open) == 2
    talk.provider("error", error={"event_id": "e1"})
    assert len(talk.till.open) == 1
    talk.client("response.create")
    await settled()
    talk.provider("error", error={"event_id": None})
    assert talk.talk.answers is not None
    assert len(talk.talk.answers.asked) == 1
    talk.provider("error", error={"event_id": "other"})
    assert len(talk.talk.answers.asked) == 1


async def test_no_more_responses_than_a_limit_are_asked_for_at_once() -> None:
    talk = await opened(money=100)
    for _ in range(ASKED_MAX):
        talk.client("response.create")
    with pytest.raises(Refusal) as caught:
        talk.client("response.create")
    assert caught.value.code == "rate_limited"


async def test_a_response_that_was_never_seen_to_begin_is_a_turn_too() -> None:
    talk = await opened()
    talk.provider("response.done", **response("r1", usage=USAGE))
    await settled()
    assert [hold.ending for hold in talk.till.holds] == ["complete", ""]


async def test_the_context_of_an_estimate_grows_with_the_conversation() -> None:
    talk = await opened()
    talk.provider("response.created", **response("r1"))
    talk.provider("response.done", **response("r1", usage=USAGE))
    await settled()
    talk.client("conversation.item.create", item={"text": "x" * 4_000})
    talk.client("input_audio_buffer.append", audio="A" * 64_000)  # a second
    talk.provider("response.created", **response("r2"))
    talk.provider("response.output_text.delta", response_id="r2", delta="hello")
    talk.talk.close("cut")
    (cut,) = [hold for hold in talk.till.holds if hold.ending == "cut"]
    usage = cut.meter.reading().usage
    assert 253 + 1_000 + 10 <= usage.input_tokens < 253 + 1_100
    assert usage.input_audio_tokens == 10
    assert usage.output_tokens > 0


async def test_a_response_in_a_session_that_only_transcribes_ends_it() -> None:
    talk = await opened(transcribes=True)
    with pytest.raises(Refusal):
        talk.client("response.create")
    with pytest.raises(Refusal):
        talk.client("session.update", session={"type": "realtime", "model": "gpt-realtime"})
    assert talk.talk.verdict() is None
    talk.provider("response.created", **response("r1"))
    verdict = talk.talk.verdict()
    assert verdict is not None
    assert verdict.code == "route_not_metered"


# --- what is held --------------------------------------------------------------------------


async def test_the_limit_follows_what_is_in_force() -> None:
    talk = await opened()
    talk.provider("session.created", session={"max_output_tokens": 100})
    assert talk.limits() == [None]  # larger than need be, and here
    talk.provider("response.created", **response("r1"))
    await settled()
    assert talk.limits() == [None, 100]
    talk.client("response.create", response={"max_output_tokens": 300})
    assert talk.sent == []
    await settled()
    assert talk.sent == ["response.create"]
    assert talk.limits() == [None, 300]
    talk.client("session.update", session={"max_output_tokens": "inf"})
    await settled()
    assert talk.limits() == [None, None]


async def test_an_earlier_confirmation_lowers_nothing() -> None:
    """Two updates under way: what the first one says is not in force for long."""
    talk = await opened()
    talk.client("session.update", session={"max_output_tokens": 10})
    talk.client("session.update", session={"max_output_tokens": 4_000})
    talk.provider("session.updated", session={"max_output_tokens": 10})
    talk.provider("response.created", **response("r1"))
    await settled()
    assert talk.limits() == [None, None]
    talk.provider("session.updated", session={"max_output_tokens": 4_000})
    talk.provider("response.done", **response("r1", usage=USAGE))
    talk.provider("response.created", **response("r2"))
    await settled()
    assert talk.limits() == [None, 4_000]


async def test_the_provider_has_the_last_word_on_a_limit() -> None:
    talk = await opened()
    talk.provider("session.updated", session={"max_output_tokens": 10})
    talk.provider("response.created", **response("r1"))
    await settled()
    assert talk.limits() == [None, 10]
    talk.client("session.update", session={"instructions": "hi"})
    talk.provider("session.updated", session={"max_output_tokens": "inf"})
    await settled()
    assert talk.limits() == [None, None]


@pytest.mark.parametrize("model", ["gpt-realtime", "gpt-realtime-2025-08-28"])
async def test_the_model_of_a_session_stays(model: str) -> None:
    talk = await opened()
    talk.provider("session.created", session={"model": "gpt-realtime-2025-08-28"})
    talk.client("session.update", session={"model": model})
    assert talk.sent == ["session.update"]
    with pytest.raises(Refusal):
        talk.client("session.update", session={"model": "gpt-realtime-2"})


async def test_names_of_deployments_are_mapped() -> None:
    talk = await opened(**{"gpt-realtime": "gpt-realtime-mini", "asr": "whisper-1"})
    talk.client("session.update", session={"input_audio_transcription": {"model": "asr"}})
    await settled()
    assert [hold.facts.model for hold in talk.till.open] == ["gpt-realtime-mini", "whisper-1"]


# --- transcriptions ------------------------------------------------------------------------


def transcription(model: str | None) -> dict[str, Any]:
    found = {"model": model} if model else None
    return {"session": {"audio": {"input": {"transcription": found}}}}


DONE = "conversation.item.input_audio_transcription.completed"
SECONDS = {"usage": {"type": "duration", "seconds": 3}}


async def test_transcriptions_are_held_for_once_they_are_asked_for() -> None:
    talk = await opened(money=3)
    talk.client("session.update", **transcription("whisper-1"))
    assert talk.sent == []
    await settled()
    assert talk.sent == ["session.update"]
    talk.provider("session.updated", **transcription("whisper-1"))
    talk.provider("input_audio_buffer.committed", item_id="i1")
    talk.provider("input_audio_buffer.committed", item_id="i2")
    talk.client("input_audio_buffer.append", audio="AAAA")
    assert talk.sent == ["session.update"]  # a third one might begin
    talk.provider(DONE, item_id="i1", **SECONDS)
    talk.provider(DONE, item_id="i2", **SECONDS)
    talk.till.give(1)
    await settled()
    assert talk.sent == ["session.update", "input_audio_buffer.append"]
    assert [h.ending for h in talk.till.holds if h.facts.model == "whisper-1"] == [
        "complete", "complete", "",
    ]  # fmt: skip


async def test_transcriptions_that_are_turned_off_are_held_for_no_more() -> None:
    talk = await opened()
    talk.client("session.update", **transcription("whisper-1"))
    await settled()
    talk.provider("session.updated", **transcription("whisper-1"))
    talk.client("session.update", **transcription(None))
    assert len(talk.till.open) == 2
    talk.provider("session.updated", **transcription(None))
    assert len(talk.till.open) == 1
    talk.provider("input_audio_buffer.committed", item_id="i1")
    assert not talk.talk.is_busy()
    talk.client("session.update", **transcription("whisper-1"))
    await settled()
    assert len(talk.till.open) == 2


async def test_a_provider_that_transcribes_unasked() -> None:
    talk = await opened()
    talk.provider("session.created", **transcription("gpt-4o-mini-transcribe"))
    await settled()
    assert [h.facts.model for h in talk.till.open] == ["gpt-realtime", "gpt-4o-mini-transcribe"]


async def test_a_transcription_out_of_nowhere_is_charged() -> None:
    talk = await opened()
    talk.provider(DONE, item_id="i1", **SECONDS)
    endings = [(h.facts.route.name, h.ending) for h in talk.till.holds]
    assert ("realtime.transcription", "complete") in endings


async def test_a_failed_transcription_costs_nothing() -> None:
    talk = await opened(transcribes=True)
    talk.provider("input_audio_buffer.committed", item_id="i1")
    kind = "conversation.item.input_audio_transcription.failed"
    talk.provider(kind, item_id="i1", error={"code": "audio_unintelligible"})
    (hold,) = [hold for hold in talk.till.holds if hold.ending]
    assert (hold.ending, hold.meter.reading().usage) == ("upstream_error", None)


async def test_long_audio_is_held_for_in_full() -> None:
    talk = await opened(transcribes=True)
    talk.client("input_audio_buffer.append", audio=AN_HOUR)
    assert talk.sent == []
    await settled()
    assert talk.sent == ["input_audio_buffer.append"]
    (hold,) = talk.till.open
    # In the format with the fewest bytes a second it lasts six hours.
    assert hold.facts.size.units["seconds"] >= 6 * 3600
    talk.provider("input_audio_buffer.committed", item_id="i1")
    await settled()
    assert talk.till.open[-1].facts.size.units["seconds"] == 1_800
    # What was on its way when it was committed may be in the next one.
    talk.client("input_audio_buffer.append", audio="AAAA")
    await settled()
    assert talk.till.open[-1].facts.size.units["seconds"] >= 6 * 3600


# --- a provider that does what it likes ----------------------------------------------------

STEPS = st.lists(
    st.sampled_from(
        [
            *("create", "out of band", "audio", "commit", "raise", "lower", "error"),
            *("speech", "begin", "done", "settle", "transcribe", "committed", "transcribed"),
            *("take", "take"),
        ]
    ),
    max_size=60,
)


class Provider:
    """Begins what the client's events allow it to begin."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.begun: list[str] = []
        self.count = 0
        self.taken = 0  # of the client's events
        self.creates = 0  # of those, what is to be begun
        self.limit: int | None = None  # in force

    def take(self) -> None:
        """The next event of the client arrives."""
        if self.taken < len(self.talk.passed):
            event = self.talk.passed[self.taken]
            self.taken += 1
            self.creates += event.kind == "response.create"
            if event.kind == "session.update":
                session: Any = event.body["session"]
                limit = session.get("max_output_tokens", self.limit)
                self.limit = None if limit == "inf" else limit
                session = {**session, "max_output_tokens": self.limit}
                self.talk.provider("session.updated", session=session)

    def begin(self, *, asked: bool) -> None:
        """One response of the conversation at a time, and those asked for besides it."""
        if (not self.creates) if asked else bool(self.begun):
            return
        self.creates -= asked
        self.count += 1
        name = f"r{self.count}"
        self.begun.append(name)
        self.talk.provider("response.created", **response(name))
        assert self.talk.talk.answers is not None
        call: Any = self.talk.talk.answers.active[name].call
        if call is not None:
            held = call.facts.size.output_limit
            assert held is None or (self.limit is not None and held >= self.limit)

    def done(self) -> None:
        if self.begun:
            self.talk.provider("response.done", **response(self.begun.pop(0), usage=USAGE))


async def step(talk: Talk, provider: Provider, name: str) -> None:
    limits = {"raise": "inf", "lower": 10}
    if name == "settle":
        await settled()
    elif name == "take":
        provider.take()
    elif name in ("create", "out of band"):
        conversation = "none" if name == "out of band" else "auto"
        talk.client("response.create", response={"conversation": conversation})
    elif name in limits:
        session = {"max_output_tokens": limits[name]}
        talk.client("session.update", session=session)
    elif name == "transcribe":
        talk.client("session.update", **transcription("whisper-1"))
    elif name in ("audio", "commit"):
        talk.client("input_audio_buffer.append", audio="AAAA")
    elif name == "error":
        talk.provider("error", error={"code": "some_error"})
    elif name == "committed":
        talk.provider("input_audio_buffer.committed", item_id=f"i{provider.count}")
    elif name == "transcribed":
        talk.provider(DONE, item_id=f"i{provider.count}", **SECONDS)
    elif name == "done":
        provider.done()
    else:
        provider.begin(asked=name == "begin")


@given(STEPS, st.integers(1, 6))
def test_every_hold_ends_once_and_every_turn_has_one(steps: list[str], money: int) -> None:
    async def run() -> None:
        talk = await opened(money)
        provider = Provider(talk)
        for name in steps:
            try:
                await step(talk, provider, name)
            except Refusal:
                assert name in ("create", "out of band")  # too many at once
            if talk.talk.verdict() is not None:
                break
        begun = provider.count
        talk.talk.close("cut")
        await settled()
        assert talk.till.open == []
        answers = [h for h in talk.till.holds if h.meter and h.facts.route.name == "realtime"]
        assert len(answers) == begun
        assert talk.till.money >= 0

    asyncio.run(run())


@given(STEPS)
def test_with_money_no_turn_begins_without_a_hold(steps: list[str]) -> None:
    """If the till answers between two events, as it does where a budget is not about to end."""

    async def run() -> None:
        talk = await opened(money=1_000)
        provider = Provider(talk)
        for name in steps:
            if name == "error":  # of something else than it seems
                continue
            if name == "transcribed" and talk.talk.transcripts is None:  # out of nowhere
                continue
            with_refusal = name in ("create", "out of band")
            try:
                await step(talk, provider, name)
            except Refusal:
                assert with_refusal
            assert talk.talk.answers is not None
            assert not talk.talk.answers.uncovered
            await settled()
            assert talk.waiting == []
            assert talk.talk.verdict() is None
        assert all(hold.backed for hold in talk.till.holds)
        talk.talk.close("cut")

    asyncio.run(run())
