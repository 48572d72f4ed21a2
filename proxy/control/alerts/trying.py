"""One alert through each of some channels, and what happened: nothing of it is recorded."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from db.alerts import RAISED, Message
from proxy.config import AlertChannel
from proxy.control.alerts.channels import Undelivered, deliver
from proxy.control.alerts.messages import Content

SUMMARY = "this is a test of `tollkeeper alerts test`: nothing is wrong"


class Tried(NamedTuple):
    channel: str
    kind: str
    status: str  # "ok", or "fail, " and why
    seconds: str


async def try_channels(channels: Mapping[str, AlertChannel]) -> list[Tried]:
    return list(await asyncio.gather(*(_try(*item) for item in channels.items())))


async def _try(name: str, channel: AlertChannel) -> Tried:
    now_ms = time.time_ns() // 1_000_000
    message = Message(
        str(uuid.uuid4()), "test", RAISED, "info", "", SUMMARY, {"channel": name}, now_ms, None
    )
    began = time.monotonic()
    try:
        await deliver(channel, Content(message), time.time)
        status = "ok"
    except Undelivered as exc:
        status = f"fail, {exc}"
    return Tried(name, channel.kind, status, f"{time.monotonic() - began:.2f}")
