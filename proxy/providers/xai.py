"""xAI: OpenAI's wire format; replies carry what they cost, and images are priced by number.

An image that is edited is billed like one that is made.
"""

from collections.abc import Mapping

from proxy.providers.base import Facts, Route
from proxy.providers.endpoints import IMAGES, MEDIA, Endpoint
from proxy.providers.host import Host
from proxy.providers.media import image_facts
from proxy.providers.openai import OpenAI

HOST = Host("xai", "xai", "https://api.x.ai", ("XAI_API_KEY",), "/v1")


def edit_facts(route: Route, path: str, body: bytes) -> Facts:
    """Images made, and images read."""
    facts = image_facts(route, path, body)
    units = facts.size.units
    read = units.pop("input_images", 0)
    for unit in units:
        units[unit] += read
    return facts


class XAI(OpenAI):
    """The `xai` dialect."""

    name = "xai"
    endpoints: Mapping[str, Endpoint] = {
        **MEDIA,
        "images.edits": Endpoint(edit_facts, IMAGES.reader),
    }
