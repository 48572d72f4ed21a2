"""OpenAI's image generation tool: the images are billed by tokens at an image model's prices, on
top of what the model that calls the tool is billed for.

What one call of the tool can use follows from what image models take: prompts of 32,000 characters
and 16 images. Images made earlier in the same response can be among them. Set `max_tool_calls` for
a smaller hold.
"""

from pricing.ceiling import PROVIDER_ADDS_TOKENS
from pricing.usage import RequestSize
from proxy.providers import requests as rq
from proxy.providers.base import ToolModel
from proxy.providers.fields import MODEL_CHARS_MAX, as_dict, as_list, as_text

TOOL = "image_generation"
PROMPT_TOKENS_MAX = 32_000
IMAGES_TAKEN_MAX = 16
# Where neither request nor reply names one; the hold is for the dearest.
DEFAULT_MODEL = "gpt-image-1"
DEFAULT_MODELS = (DEFAULT_MODEL, "gpt-image-1.5", "gpt-image-2")


def image_tool(body: dict[str, object], size: RequestSize) -> tuple[ToolModel, ...]:
    """What the tool can use, if a Responses request has it; `size` is the request's."""
    if not body.get("tools"):
        return ()
    tools = [tool for tool in map(as_dict, as_list(body.get("tools"))) if tool.get("type") == TOOL]
    calls = rq.checked_count(body, "max_tool_calls", least=0)
    calls = rq.WEB_SEARCHES_DEFAULT if calls is None else calls
    if not tools or not calls:
        return ()
    models = tuple(_model_of(tool) for tool in tools)
    known = IMAGES_TAKEN_MAX if size.windowed else size.inline_images
    known += sum("input_image_mask" in tool for tool in tools)
    taken = sum(min(known + made, IMAGES_TAKEN_MAX) for made in range(min(calls, IMAGES_TAKEN_MAX)))
    taken += IMAGES_TAKEN_MAX * max(0, calls - IMAGES_TAKEN_MAX)
    used = RequestSize(
        calls * (PROMPT_TOKENS_MAX + PROVIDER_ADDS_TOKENS),
        inputs=calls,
        inline_images=taken,
        units={"images": calls},
    )
    named = tuple(dict.fromkeys(model for model in models if model))
    return (ToolModel(named if all(models) else (*named, *DEFAULT_MODELS), used),)


def _model_of(tool: dict[str, object]) -> str:
    return as_text(tool.get("model"))[:MODEL_CHARS_MAX]


def model_drawn_with(body: dict[str, object]) -> str:
    """The image model of a response."""
    for tool in map(as_dict, as_list(body.get("tools"))):
        if tool.get("type") == TOOL:
            return _model_of(tool) or DEFAULT_MODEL
    return DEFAULT_MODEL
