"""One bill per provider, worked by hand from its list prices, in nano-USD.

Each line is `tokens * USD per million * 1,000`, or `units * USD * 10**9`, as the invoice has it.
"""

from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from pricing.book import FREE, PriceBook
from pricing.calculator import cost
from pricing.table import PriceTable, list_tables
from pricing.usage import Usage

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


class Bill(NamedTuple):
    provider: str
    model: str
    usage: Usage
    lines: tuple[float, ...]  # nano-USD, each exact
    total: int
    hour: int = 12  # UTC


def mtok(tokens: int, usd: str) -> float:
    """Tokens at a price in USD per million."""
    whole, _, part = usd.partition(".")
    return tokens * int(whole + part.ljust(6, "0")) / 1_000


def each(count: int, usd: str) -> float:
    """Units at a price in USD."""
    whole, _, part = usd.partition(".")
    return count * int(whole + part.ljust(9, "0"))


BILLS = [
    Bill(  # GPT-5 mini: $0.25 in, $0.025 cached, $2 out; two web searches at $10 per 1,000
        "openai",
        "gpt-5-mini-2025-08-07",
        Usage(12_000, 800, 10_240, reasoning_tokens=512, units={"web_search": 2}),
        (mtok(1_760, "0.25"), mtok(10_240, "0.025"), mtok(800, "2"), each(2, "0.01")),
        22_296_000,
    ),
    Bill(  # Whisper: $0.006 a minute
        "openai", "whisper-1", Usage(units={"seconds": 150}), (each(150, "0.0001"),), 15_000_000
    ),
    Bill(  # Sonnet 4.5: $3, $0.30 read, $3.75 written for 5 minutes, $6 for an hour, $15 out
        "anthropic",
        "claude-sonnet-4-5-20250929",
        Usage(30_000, 1_000, 20_000, 9_000, 4_000, units={"web_search": 1}),
        (
            mtok(1_000, "3"),
            mtok(20_000, "0.3"),
            mtok(5_000, "3.75"),
            mtok(4_000, "6"),
            mtok(1_000, "15"),
            each(1, "0.01"),
        ),
        76_750_000,
    ),
    Bill(  # 2.5 Pro above 200,000 tokens: $2.50 in, $0.25 cached, $15 out; grounded: $35 per 1,000
        "gemini",
        "models/gemini-2.5-pro",
        Usage(250_000, 3_000, 50_000, reasoning_tokens=2_000, units={"web_search": 4}),
        (mtok(200_000, "2.5"), mtok(50_000, "0.25"), mtok(3_000, "15"), each(1, "0.035")),
        592_500_000,
    ),
    Bill(  # 2.5 Flash: text $0.30, audio $1, out $2.50; Maps: $25 per 1,000 prompts
        "vertex_ai",
        "publishers/google/models/gemini-2.5-flash",
        Usage(5_000, 600, input_audio_tokens=4_000, units={"google_maps": 1}),
        (mtok(1_000, "0.3"), mtok(4_000, "1"), mtok(600, "2.5"), each(1, "0.025")),
        30_800_000,
    ),
    Bill(  # GPT-4.1 on Azure: $2, $0.50 cached, $8; a code session is $0.033
        "azure",
        "gpt-4.1",
        Usage(9_000, 700, 4_096, units={"code_interpreter": 1}),
        (mtok(4_904, "2"), mtok(4_096, "0.5"), mtok(700, "8"), each(1, "0.033")),
        50_456_000,
    ),
    Bill(  # Haiku 4.5 by a US profile: 1.1 times $1, $0.10 and $5
        "bedrock",
        "us.anthropic.claude-haiku-4-5-20251001-v1%3A0",
        Usage(8_000, 500, 6_000),
        (mtok(2_000, "1.1"), mtok(6_000, "0.11"), mtok(500, "5.5")),
        5_610_000,
    ),
    Bill(  # Mistral Large: $0.50, $0.05 cached, $1.50
        "mistral",
        "mistral-large-latest",
        Usage(2_000, 300, 1_024),
        (mtok(976, "0.5"), mtok(1_024, "0.05"), mtok(300, "1.5")),
        989_200,
    ),
    Bill(  # Mistral OCR: $4 per 1,000 pages, $5 annotated
        "mistral",
        "mistral-ocr-latest",
        Usage(units={"pages": 25, "annotated_pages": 2}),
        (each(25, "0.004"), each(2, "0.005")),
        110_000_000,
    ),
    Bill(  # gpt-oss-120b on Groq: $0.15, $0.075 cached, $0.60
        "groq",
        "openai/gpt-oss-120b",
        Usage(3_000, 400, 2_000, reasoning_tokens=150),
        (mtok(1_000, "0.15"), mtok(2_000, "0.075"), mtok(400, "0.6")),
        540_000,
    ),
    Bill(  # Whisper turbo on Groq, four seconds: ten at the least
        "groq",
        "whisper-large-v3-turbo",
        Usage(units={"milliseconds": 4_200}),
        (each(10, "0.00001111"),),
        111_100,
    ),
    Bill(  # Grok 4: $3, $0.75 cached, $15
        "xai",
        "grok-4-0709",
        Usage(1_500, 900, 1_000, reasoning_tokens=800),
        (mtok(500, "3"), mtok(1_000, "0.75"), mtok(900, "15")),
        15_750_000,
    ),
    Bill(  # DeepSeek V4.1 Flash on a Monday at noon, off-peak: half of $0.30, $0.006 and $1.20
        "deepseek",
        "deepseek-flash",
        Usage(10_000, 2_000, 8_000),
        (mtok(2_000, "0.15"), mtok(8_000, "0.003"), mtok(2_000, "0.6")),
        1_524_000,
    ),
    Bill(  # and at two in the morning, UTC, in full
        "deepseek",
        "deepseek-flash",
        Usage(10_000, 2_000, 8_000),
        (mtok(2_000, "0.3"), mtok(8_000, "0.006"), mtok(2_000, "1.2")),
        3_048_000,
        hour=2,
    ),
    Bill(  # Command A: $2.50 and $10
        "cohere",
        "command-a-03-2025",
        Usage(700, 120),
        (mtok(700, "2.5"), mtok(120, "10")),
        2_950_000,
    ),
    Bill(  # Rerank: $2 per 1,000 searches
        "cohere",
        "rerank-v3.5",
        Usage(units={"search_units": 3}),
        (each(3, "0.002"),),
        6_000_000,
    ),
    Bill(  # OpenRouter passes Haiku 4.5 on at $1, $0.10 and $5
        "openrouter",
        "anthropic/claude-haiku-4.5",
        Usage(4_000, 250, 3_000),
        (mtok(1_000, "1"), mtok(3_000, "0.1"), mtok(250, "5")),
        2_550_000,
    ),
    Bill(  # Llama 3.3 70B Turbo on Together: $1.04 both ways
        "together",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        Usage(1_000, 500),
        (mtok(1_500, "1.04"),),
        1_560_000,
    ),
    Bill(  # Sonar: $1 and $1, and $0.008 for a search of medium context
        "perplexity",
        "sonar",
        Usage(20, 400, units={"web_search@medium": 1}),
        (mtok(420, "1"), each(1, "0.008")),
        8_420_000,
    ),
    Bill(  # gpt-oss-120b on Cerebras: $0.35 and $0.75
        "cerebras",
        "gpt-oss-120b",
        Usage(2_000, 1_000),
        (mtok(2_000, "0.35"), mtok(1_000, "0.75")),
        1_450_000,
    ),
    Bill(  # gpt-oss-120b by Hugging Face's router at Groq: $0.15 and $0.75
        "huggingface",
        "openai/gpt-oss-120b:groq",
        Usage(3_000, 400),
        (mtok(3_000, "0.15"), mtok(400, "0.75")),
        750_000,
    ),
    Bill(  # Claude Haiku 4.5 on Snowflake: $1, $0.10 cached, $5
        "snowflake",
        "claude-haiku-4-5",
        Usage(2_500, 200, 1_500),
        (mtok(1_000, "1"), mtok(1_500, "0.1"), mtok(200, "5")),
        2_150_000,
    ),
    Bill(  # GLM-4.6: $0.60, $0.11 cached, $2.20
        "zai",
        "glm-4.6",
        Usage(1_800, 350, 1_024, reasoning_tokens=200),
        (mtok(776, "0.6"), mtok(1_024, "0.11"), mtok(350, "2.2")),
        1_348_240,
    ),
    Bill(  # Kimi K2 Thinking on Crusoe: $2.50 both ways
        "crusoe", "moonshotai/Kimi-K2-Thinking", Usage(900, 700), (mtok(1_600, "2.5"),), 4_000_000
    ),
    Bill(  # Voyage 3.5: $0.06; a token alone costs 60 nano-USD
        "voyage", "voyage-3.5", Usage(12_345), (mtok(12_345, "0.06"),), 740_700
    ),
    Bill(  # Claude 3 Haiku, retired, by its dated name: $0.25, $1.25
        "anthropic",
        "claude-3-haiku-20240307",
        Usage(1_000, 100),
        (mtok(1_000, "0.25"), mtok(100, "1.25")),
        375_000,
    ),
    Bill(FREE, "llama3:8b", Usage(10**6, 10**6), (), 0),
]


@pytest.fixture(scope="module")
def book() -> PriceBook:
    info = next(i for i in list_tables() if i.id.endswith("litellm-1.106.2-genai-prices-0.2.3"))
    return PriceBook(PriceTable.open(info.path, info.sha256))


@pytest.mark.parametrize("bill", BILLS, ids=lambda bill: f"{bill.provider} {bill.model}")
def test_bills(book: PriceBook, bill: Bill) -> None:
    price = book.quote(bill.provider, bill.model)
    assert price is not None
    assert sum(bill.lines) == bill.total
    at_s = MONDAY.replace(hour=bill.hour).timestamp()
    assert cost(bill.usage, price, at_s=at_s).nano == bill.total
