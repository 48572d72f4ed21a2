"""Who calls what in the demo: one organization, three teams, budgets that bind."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

UPSTREAM_KEY = "sk-simulated-provider-key"

Api = Literal["chat", "responses", "embeddings", "messages", "gemini"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key of a team."""

    key: str  # its name in the configuration; the secret is `tk-demo-` and the name
    team: str
    user: str
    api: Api
    model: str
    stream: bool
    output_limit: int | None
    calls: int

    @property
    def secret(self) -> str:
        return f"tk-demo-{self.key}"


CALLERS = (
    Caller("search-prod", "search", "ann", "chat", "gpt-5.2", True, 400, 14),
    Caller("search-ci", "search", "ci", "embeddings", "text-embedding-3-small", False, None, 5),
    Caller("support-bot", "support", "bot", "messages", "claude-sonnet-4-6", True, 64_000, 6),
    Caller("support-eva", "support", "eva", "responses", "gpt-5-mini", False, 900, 7),
    Caller("research", "research", "max", "gemini", "gemini-2.5-flash", True, None, 8),
)

# The one that runs out: its chat calls hold up to 0.0093 USD each and cost about half of that.
TIGHT_SCOPE = "team/acme/search"
LIMITS_USD = {
    "organization/acme": "2.00",
    TIGHT_SCOPE: "0.05",
    "team/acme/support": "0.40",
    "team/acme/research": "0.25",
}

HOUSE_RULES = (
    "You answer for the support desk of Acme. Be brief, be concrete, never promise a refund "
    "that the policy does not grant, and end with one question that moves the case on. "
) * 12

PROMPTS = (
    "Why did search latency double after Tuesday's release?",
    "Summarise these twelve tickets about late parcels in three sentences.",
    "Rank the five candidate titles for the landing page and say why.",
    "A customer on the annual plan asks for half of it back. What do we say?",
    "Which of our indexes would you drop first, and what would break?",
    "Compare the two labelling runs and list what they disagree on.",
    "Draft the reply to a customer whose order arrived without the charger.",
    "Is the drop in conversion on mobile real, or an artefact of the new tracking?",
)


def prompts(caller: Caller) -> Iterator[str]:
    """The caller's questions, one per call."""
    start = CALLERS.index(caller)
    for number in range(caller.calls):
        yield f"{PROMPTS[(start + number) % len(PROMPTS)]} (case {start}{number:02d})"


def config_yaml(upstream: str, port: int, admin_port: int) -> str:
    """The configuration the demo runs with; a plain one, as a user would write it."""
    lines = [
        f"server: {{port: {port}}}",
        f"admin: {{port: {admin_port}}}",
        "log: {level: warning}",
        "providers:",
        *(
            f'  {name}: {{base_url: "{upstream}", api_key: "{UPSTREAM_KEY}"}}'
            for name in ("openai", "anthropic", "gemini")
        ),
        "organizations:",
        "  acme:",
        "    teams:",
    ]
    for team in dict.fromkeys(caller.team for caller in CALLERS):
        lines += [f"      {team}:", "        keys:"]
        lines += [
            f"          - {{name: {caller.key}, user: {caller.user}, key: {caller.secret}}}"
            for caller in CALLERS
            if caller.team == team
        ]
    lines.append("budgets:")
    lines += [
        f"  - {{scope: {scope}, limit_usd: {limit}, period: day}}"
        for scope, limit in LIMITS_USD.items()
    ]
    return "\n".join(lines) + "\n"
