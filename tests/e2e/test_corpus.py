"""Recorded provider traffic replayed through the running proxy, replies cut into random pieces.

Client bytes must equal the provider's; usage and cost must be exact. The recordings are found
through TOLLKEEPER_CORPUS, or beside the checkout.
"""

import asyncio
import json
import os
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from pricing.units import kind_of
from tests import corpus
from tests.corpus import body_of, dialect_of
from tests.harness import KEY, Running, a_config

# What the recorded deployments of Azure are.
DEPLOYMENTS = {
    "openllmetry-testing": "gpt-4.1-mini",
    "test-openai": "gpt-35-turbo",
    "test-deployment": "text-embedding-3-large",
}
SEED = int(os.environ.get("TOLLKEEPER_SEED", "20261121"))

# Recordings are priced as of this moment (off-peak hours of some providers).
PRICED_AT_S = 1_795_291_200.0  # 2026-11-21T20:00:00Z
# Refused before they are forwarded, as documented.
REFUSED = {
    "5bc213c0600794df7862": "bad_request",  # a gateway's own body: it names no model
    "f3979fd888ccf44a81d3": "route_not_metered",  # an endpoint's root: its reply has no usage
    "ca9e9c4f2331553bd101": "route_not_metered",  # invoke on a model that is none
}
# Usage that is not the recorded expectation; docs/accuracy.md says why of each.
DIFFERENT = {"2f99ba74a87451a26d6c", "d46e6c7cd70905939527", "5bc213c0600794df7862"}
# The recording lost its request; this is one its reply may have come to.
STAND_INS = {"92769e867054977ccafd": b'{"model":"gpt-4o","messages":[]}'}
UNPRICED_USD_PER_MTOK = "100"
USAGE_SHARE_MIN, COST_SHARE_MIN = 0.995, 0.98
# Sent an extra usage chunk unasked: indistinguishable from the one we ask for, so withheld.
WITHHELD = {"e23d53854b0badc4071e"}

Record = dict[str, Any]


def records() -> dict[str, Record]:
    return {record["id"]: record for record in corpus.records()}


class Replay:
    """Answers each request with the recording its `x-corpus-id` names, in random pieces."""

    def __init__(self, recordings: dict[str, Record], seed: int) -> None:
        self._recordings = recordings
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[Any]] = []
        self.url = ""

    async def __aenter__(self) -> "Replay":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line
                )
                await reader.readexactly(int(headers.get(b"content-length", b"0")))
                await self._answer(writer, self._recordings[headers[b"x-corpus-id"].decode()])
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, record: Record) -> None:
        body = body_of(record, "response")
        headers = {"content-type": "application/json", **record["response_headers"]}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {record['status']} R\r\n{head}".encode())
        if self._random.random() < 0.3:
            writer.write(b"content-length: %d\r\n\r\n" % len(body))
            chunked = False
        else:
            writer.write(b"transfer-encoding: chunked\r\n\r\n")
            chunked = True
        while body:
            size = self._random.choice([1, 3, 17, 120, 1000, 8000])
            piece, body = body[:size], body[size:]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
            await asyncio.sleep(0)
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def replay_all(recordings: dict[str, Record], app: Running, url: str) -> dict[str, Any]:
    """Send every recorded request; id -> (status, bytes, request id)."""
    results: dict[str, Any] = {}
    limit = asyncio.Semaphore(8)
    async with httpx.AsyncClient(timeout=60) as http:

        async def one(record: Record) -> None:
            headers = {"authorization": f"Bearer {KEY}", "x-corpus-id": record["id"]}
            kind = record["request_headers"].get("content-type", "application/json")
            headers["content-type"] = kind
            async with limit:
                reply = await http.request(
                    record["method"],
                    f"{app.url}/{record['provider']}{record['path']}",
                    content=STAND_INS.get(record["id"]) or body_of(record, "request"),
                    headers=headers,
                )
            results[record["id"]] = (
                reply.status_code,
                reply.content,
                reply.headers.get("x-tollkeeper-request-id"),
            )

        await asyncio.gather(*(one(record) for record in recordings.values()))
    return results


USAGE_FIELDS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def usage_differs(row: dict[str, Any], expected: dict[str, Any]) -> str:
    if row["usage_source"] != "reported":
        return f"{row['usage_source']} here"
    for name in USAGE_FIELDS:
        if row[name] != (expected.get(name) or 0):
            return f"{name}: {row[name]} here, {expected.get(name)} expected"
    return ""


def token_cost(row: dict[str, Any]) -> Decimal:
    """The part of a row's cost that is tokens: recorded expectations exclude tool fees."""
    total = Decimal(0)
    for item in row["cost_items"]:
        if kind_of(item["item"]) != "tool":
            total += Decimal(item["usd"])
    return total


def is_unpriced(row: dict[str, Any]) -> bool:
    """Whether it was charged the declared rate of models without a price."""
    tokens = row["input_tokens"] + row["output_tokens"]
    return bool(tokens) and token_cost(row) == tokens * Decimal(UNPRICED_USD_PER_MTOK) / 10**6


@pytest.mark.slow
def test_usage_and_cost_are_exact_on_recorded_traffic(tmp_path: Path) -> None:
    recordings = records()
    providers = {record["provider"]: dialect_of(record) for record in recordings.values()}

    async def go() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        async with Replay(recordings, SEED) as replay:
            config = a_config(
                tmp_path,
                replay.url,
                providers={
                    name: {
                        "base_url": replay.url,
                        "dialect": dialect,
                        "api_key": "sk-upstream",
                        "prices": name,
                        "models": DEPLOYMENTS if name == "azure" else {},
                    }
                    for name, dialect in providers.items()
                },
                pricing={
                    "unpriced": "ceiling",
                    "unpriced_usd_per_mtok": UNPRICED_USD_PER_MTOK,
                    "overlays": [{"max_input_tokens": 1_000_000, "max_output_tokens": 100_000}],
                },
            )
            with Running(config, now_s=lambda: PRICED_AT_S) as app:
                results = await replay_all(recordings, app, replay.url)
                rows = await asyncio.to_thread(app.rows)
                assert await asyncio.to_thread(app.findings) == []
                return results, rows

    results, rows = asyncio.run(go())
    report = compare(recordings, results, {row["request_id"]: row for row in rows})
    told = json.dumps(report, indent=1)
    assert report["bytes_differ"] == [], told
    assert report["usage_wrong"].keys() == DIFFERENT, told
    assert len(DIFFERENT) <= report["usage_expected"] * (1 - USAGE_SHARE_MIN), told
    assert report["cost_wrong"] == {}, told
    assert len(report["not_priced"]) <= report["cost_agreed"] * (1 - COST_SHARE_MIN), told


def test_what_differs_is_explained() -> None:
    explained = (Path(__file__).parents[2] / "docs/accuracy.md").read_text()
    missing = [id_ for id_ in (*DIFFERENT, *REFUSED, *WITHHELD, *STAND_INS) if id_ not in explained]
    assert not missing


def compare(
    recordings: dict[str, Record], results: dict[str, Any], rows: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "recordings": len(recordings),
        "bytes_differ": [],
        "usage_expected": 0,
        "usage_wrong": {},
        "cost_agreed": 0,
        "cost_wrong": {},
        "not_priced": {},
    }
    for id_, record in recordings.items():
        status, content, request_id = results[id_]
        label = f"{id_} {record['provider']} {record['api']} {record['model_requested']}"
        expected = record["expected_usage"]
        report["usage_expected"] += expected is not None
        if id_ in REFUSED:
            assert REFUSED[id_].encode() in content, label
            if expected is not None:
                report["usage_wrong"][id_] = f"{label}: refused"
            continue
        sent = body_of(record, "response")
        if id_ in WITHHELD:
            assert len(content) < len(sent), label
        elif status != record["status"] or content != sent:
            report["bytes_differ"].append(f"{label}: {status} {content[:200]!r}")
            continue
        if expected is None:
            continue
        row = rows[request_id]
        if difference := usage_differs(row, expected):
            report["usage_wrong"][id_] = f"{label}: {difference}"
        agreed = record.get("expected_cost") or {}
        if not agreed.get("agreed"):
            continue
        report["cost_agreed"] += 1
        if is_unpriced(row):
            report["not_priced"][id_] = label
        elif token_cost(row) != Decimal(agreed["value"]):
            report["cost_wrong"][id_] = f"{label}: {token_cost(row)} != {agreed['value']}"
    return report
