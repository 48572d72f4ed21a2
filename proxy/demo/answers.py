"""What the simulated provider says, and how many tokens that is, by seed and prompt."""

import random
from dataclasses import dataclass, field
from zlib import crc32

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 3  # role and separators around each message
REASONING_MODELS = ("gpt-5", "gemini-2.5")

_SENTENCES = (
    "The short version: the change is safe, and most of the risk is in the roll-out.",
    "Start with the slow query; it accounts for about 80 % of the time spent in the request.",
    "An index on (tenant_id, created_at) turns the sequential scan into a range read.",
    "Customers on the annual plan are refunded pro rata, rounded to the nearest day.",
    "If the parcel has not moved for five working days, offer a replacement at no charge.",
    "Two of the three clusters disagree on the label, so I would ask for a second annotation.",
    "The retry budget belongs to the caller; the library should fail fast and say why.",
    "Q3 revenue grew 14 % year on year, and churn fell from 2.1 % to 1.7 %.",
    "I would keep the feature flag for one more release and then remove both branches.",
    "The contract renews on the first of March unless either party gives 60 days' notice.",
    "Relevance improves most from better titles; the body text adds little after that.",
    "In other words, the cache is correct but it is keyed by the wrong thing.",
    "Please let me know if you want the same figures broken down by region.",
    "The tests that fail share one fixture, which leaves a file open between runs.",
    "A median of 240 ms is fine, but the 99th percentile of 3.8 s is what users notice.",
    "None of the sources gives a primary reference for that claim, so I left it out.",
    "Sort the candidates by margin first; the remaining ties are few enough to read by hand.",
    "The simplest fix is to validate the address when it is entered, not when it is used.",
)


@dataclass(slots=True)
class Ask:
    """What matters of a request, whatever its wire format."""

    model: str
    prompt: str
    instructions: str = ""
    messages: int = 1
    output_limit: int | None = None
    stream: bool = False
    include_usage: bool = False  # chat completions
    cache_instructions: bool = False  # Anthropic's cache_control
    inputs: list[str] = field(default_factory=list)  # embeddings
    base64: bool = False


@dataclass(slots=True)
class Answer:
    """What is said and what it counts; `input_tokens` includes the cached ones."""

    id: str
    model: str
    pieces: list[str]
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int  # reasoning included
    reasoning_tokens: int
    truncated: bool

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def chunks(self, tokens_each: int) -> list[str]:
        """The text as a stream sends it."""
        starts = range(0, len(self.pieces), tokens_each)
        return ["".join(self.pieces[at : at + tokens_each]) for at in starts]

    @property
    def text_tokens(self) -> int:
        return self.output_tokens - self.reasoning_tokens


def tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


class Author:
    """Answers deterministically: the same seed and the same sequence of asks, the same answers."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._answers = 0
        self._seen_instructions: set[tuple[str, str]] = set()

    def answer(self, ask: Ask) -> Answer:
        self._answers += 1
        draw = random.Random(crc32(f"{self._seed} {ask.model} {ask.prompt}".encode()))  # noqa: S311
        reasoning = draw.randrange(40, 200) if ask.model.startswith(REASONING_MODELS) else 0
        pieces = _pieces(" ".join(draw.sample(_SENTENCES, draw.randrange(6, 13))))
        room = len(pieces) if ask.output_limit is None else ask.output_limit
        reasoning = min(reasoning, room)
        said = pieces if ask.output_limit is None else pieces[: room - reasoning]
        cached, written = self._cache(ask)
        instructions = tokens(ask.instructions)
        return Answer(
            id=f"{self._answers:06d}{draw.getrandbits(64):016x}",
            model=ask.model,
            pieces=said,
            input_tokens=instructions + tokens(ask.prompt) + MESSAGE_TOKENS * ask.messages,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            output_tokens=reasoning + len(said),
            reasoning_tokens=reasoning,
            truncated=len(said) < len(pieces),
        )

    def _cache(self, ask: Ask) -> tuple[int, int]:
        """(tokens read, tokens written): instructions asked to be cached, seen before or not."""
        if not ask.cache_instructions or not ask.instructions:
            return 0, 0
        seen = (ask.model, ask.instructions)
        if seen in self._seen_instructions:
            return tokens(ask.instructions), 0
        self._seen_instructions.add(seen)
        return 0, tokens(ask.instructions)


def _pieces(text: str) -> list[str]:
    """Cut a text into tokens: pieces of four characters, as counted."""
    return [text[at : at + BYTES_PER_TOKEN] for at in range(0, len(text), BYTES_PER_TOKEN)]
