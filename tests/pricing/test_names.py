import pytest

from pricing.names import canonical_provider, spellings


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("gpt-4o", ["gpt-4o"]),
        ("models/gemini-2.5-pro", ["models/gemini-2.5-pro", "gemini-2.5-pro"]),
        (
            "publishers/anthropic/models/claude-opus-4-8",
            ["publishers/anthropic/models/claude-opus-4-8", "claude-opus-4-8"],
        ),
        (
            "projects/p/locations/us-east5/publishers/google/models/gemini-3",
            ["projects/p/locations/us-east5/publishers/google/models/gemini-3", "gemini-3"],
        ),
        (
            "us.anthropic.claude-haiku-4-5-20251001-v1%3A0",
            [
                "us.anthropic.claude-haiku-4-5-20251001-v1%3A0",
                "us.anthropic.claude-haiku-4-5-20251001-v1:0",
            ],
        ),
        (
            "arn:aws:bedrock:us-east-1:123:inference-profile/eu.amazon.nova-lite-v1:0",
            [
                "arn:aws:bedrock:us-east-1:123:inference-profile/eu.amazon.nova-lite-v1:0",
                "eu.amazon.nova-lite-v1:0",
            ],
        ),
        (
            "ft:gpt-4o-2024-08-06:acme::id",
            ["ft:gpt-4o-2024-08-06:acme::id", "ft:gpt-4o-2024-08-06"],
        ),
        ("accounts/fireworks/models/x", ["accounts/fireworks/models/x"]),
    ],
)
def test_spellings(model: str, names: list[str]) -> None:
    assert list(spellings(model)) == names


def test_a_profile_that_hides_its_model_stays_hidden() -> None:
    arn = "arn:aws:bedrock:us-east-1:123:application-inference-profile/abc"
    assert list(spellings(arn)) == [arn]


def test_providers_by_other_names() -> None:
    assert canonical_provider("together") == "together_ai"
    assert canonical_provider("openai") == "openai"
