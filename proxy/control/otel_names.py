"""What telemetry is called outside: the one place that knows OpenTelemetry's names.

The conventions for GenAI as of semantic conventions 1.41.1, with the later name for cache writes
beside the earlier one. What has no convention is under `tollkeeper.`.
"""

# --- spans: HTTP ---------------------------------------------------------------------------

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# --- spans: GenAI --------------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_CHOICES = "gen_ai.request.choice.count"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
USAGE_COST = "gen_ai.usage.cost"  # what Langfuse reads
OPENAI_API_TYPE = "openai.api.type"
OPENAI_REQUEST_TIER = "openai.request.service_tier"
OPENAI_RESPONSE_TIER = "openai.response.service_tier"

# --- spans: our own ------------------------------------------------------------------------

REQUEST_ID = "tollkeeper.request.id"
ORGANIZATION = "tollkeeper.organization"
TEAM = "tollkeeper.team"
PROJECT = "tollkeeper.project"
USER = "tollkeeper.user"
KEY = "tollkeeper.key"
REFUSAL = "tollkeeper.refusal.code"
BUDGET_SCOPE = "tollkeeper.budget.scope"
BUDGET_DECISION = "tollkeeper.budget.decision"
CLAMPED = "tollkeeper.clamped_max_tokens"
ENDING = "tollkeeper.ending"
USAGE_SOURCE = "tollkeeper.usage.source"
COST_USD = "tollkeeper.cost.usd"
PRICING_VERSION = "tollkeeper.pricing.version"

BLOCKED = "blocked"  # a decision
ERROR_EVENT = "error_event"  # error type: an error inside a reply that began well

# --- metrics -------------------------------------------------------------------------------

DURATION_METRIC = "gen_ai.client.operation.duration"
FIRST_CHUNK_METRIC = "gen_ai.client.operation.time_to_first_chunk"
TOKENS_METRIC = "gen_ai.client.token.usage"
COST_METRIC = "tollkeeper.cost.usd"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - input or output
OTHER = "other"  # models without a price: callers choose their names

SECONDS = tuple(0.01 * 2**power for power in range(14))  # 0.01 to 81.92
TOKENS = tuple(4.0**power for power in range(14))  # 1 to 67,108,864

# --- values --------------------------------------------------------------------------------

# By the name in the price table or the configuration; others are their own.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_mantle": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "xai": "x_ai",
}
_STANDARD = frozenset(("openai", "anthropic", "cohere", "deepseek", "groq", "perplexity"))
API_TYPES = {"chat.completions": "chat_completions", "responses": "responses"}


def provider_name(name: str, prices: str) -> str:
    """The convention's name of a provider; its name in the configuration where there is none."""
    known = _PROVIDERS.get(prices) or _PROVIDERS.get(name)
    return known or (prices if prices in _STANDARD else name)
