"""The demo from start to end: provider, proxy, SDKs, screen, and a check of every claim made."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.live import Live

from proxy.config import Config
from proxy.config_loader import load
from proxy.demo import ledger_view
from proxy.demo.callers import Refused, Sdks
from proxy.demo.provider import SimulatedProvider
from proxy.demo.proxy_process import free_port, running
from proxy.demo.scenario import (
    CALLERS,
    LIMITS_USD,
    TIGHT_SCOPE,
    UPSTREAM_KEY,
    Caller,
    config_yaml,
    prompts,
)
from proxy.demo.screen import View, draw, print_line, summary
from proxy.demo.serving import served

CHUNK_DELAY_S = 0.004
POLL_S = 0.1
ROWS_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the demo shows, and whether it held."""

    text: str
    holds: bool


class Demo:
    """One run against a proxy that is up."""

    def __init__(self, config: Config, url: str, provider: SimulatedProvider, sdks: Sdks) -> None:
        self.view = View(url, LIMITS_USD)
        self._config = config
        self._provider = provider
        self._sdks = sdks
        self._lock = threading.Lock()
        self._answered = 0
        self._attempts = 0

    def drive(self, refresh: Callable[[], None]) -> None:
        """Make all calls, each caller in a thread of its own, and wait for the last row."""
        with ThreadPoolExecutor(len(CALLERS)) as pool:
            threads = [pool.submit(self._calls_of, caller) for caller in CALLERS]
            while not all(thread.done() for thread in threads):
                self._poll(refresh)
            _raise_first(threads)
        deadline = time.monotonic() + ROWS_TIMEOUT_S
        while len(self.view.rows) < self._answered and time.monotonic() < deadline:
            self._poll(refresh)

    def _poll(self, refresh: Callable[[], None]) -> None:
        self.view.rows = asyncio.run(ledger_view.calls(self._config))
        refresh()
        time.sleep(POLL_S)

    def _calls_of(self, caller: Caller) -> None:
        call = self._sdks.caller(self.view.url, caller)
        for prompt in prompts(caller):
            with self._in_flight():
                refused = call(prompt)
            self._count(refused)

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[None]:
        with self._lock:
            self.view.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self.view.in_flight -= 1

    def _count(self, refused: Refused | None) -> None:
        with self._lock:
            self._attempts += 1
            if refused is None:
                self._answered += 1
            else:
                self.view.refusals.append(refused)

    def claims(self) -> list[Claim]:
        """What was shown, checked against the provider's own bill and the whole ledger."""
        rows, billed = self.view.rows, self._provider.billed_usd
        total = sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))
        spent, limit = self.view.spent(TIGHT_SCOPE), LIMITS_USD[TIGHT_SCOPE]
        refused = len(self.view.refusals)
        ids = {row["request_id"] for row in rows}
        findings = asyncio.run(ledger_view.findings(self._config))
        bills = len(self._provider.bills)
        return [
            Claim(
                f"{self._answered} calls answered, {bills} billed by the provider, "
                f"{len(rows)} cost rows",
                self._answered == bills == len(rows) == len(ids),
            ),
            Claim(f"the rows add up to ${total}; the provider billed ${billed}", total == billed),
            Claim(
                f"{TIGHT_SCOPE} spent ${spent} of ${limit}; {refused} calls were refused, "
                "and none of them reached the provider",
                0 < spent <= Decimal(limit) and 0 < refused == self._attempts - self._answered,
            ),
            Claim(
                "the provider only ever saw its own key, never a caller's",
                self._provider.rejected == 0,
            ),
            Claim(
                "`tollkeeper verify`: "
                + ("every invariant holds" if not findings else findings[0]),
                not findings,
            ),
        ]


def _raise_first(threads: Sequence[Future[None]]) -> None:
    for thread in threads:
        thread.result()


def run(console: Console, *, once: bool) -> bool:
    """Run the demo; True if everything it claims was true. Raises ProxyFailed, ImportError."""
    with console.status("importing the official SDKs, starting provider and proxy ..."):
        importing = ThreadPoolExecutor(1).submit(Sdks)
        provider = SimulatedProvider(UPSTREAM_KEY, chunk_delay_s=CHUNK_DELAY_S)
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="tollkeeper-demo-")))
            upstream = stack.enter_context(served(provider))
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            config_path = directory / "config.yaml"
            config_path.write_text(config_yaml(upstream, port, free_port()))
            stack.enter_context(running(config_path, url))
            demo = Demo(load(config_path, {}), url, provider, importing.result())
            opened = stack.pop_all()
    with opened:
        _show(console, demo)
        holds = _report(console, demo)
        if not once:
            _keep_serving(console, demo, config_path)
    return holds


def _show(console: Console, demo: Demo) -> None:
    if not console.is_terminal:
        shown = 0

        def print_new() -> None:
            nonlocal shown
            for row in demo.view.rows[shown:]:
                print_line(console, row)
            shown = len(demo.view.rows)

        demo.drive(print_new)
        return
    with Live(draw(demo.view), console=console, auto_refresh=False) as live:
        demo.drive(lambda: live.update(draw(demo.view), refresh=True))


def _report(console: Console, demo: Demo) -> bool:
    if not console.is_terminal and demo.view.refusals:
        refused = demo.view.refusals[0]
        console.print(f"{refused.exception}: {refused.message}", soft_wrap=True)
    console.print()
    console.print(summary(demo.view, asyncio.run(ledger_view.by_team(demo._config))))
    claims = demo.claims()
    for claim in claims:
        mark = "[green]✓[/]" if claim.holds else "[bold red]✗[/]"
        console.print(f" {mark} {claim.text}", soft_wrap=True)
    return all(claim.holds for claim in claims)


def _keep_serving(console: Console, demo: Demo, config_path: Path) -> None:
    url = demo.view.url
    console.print(
        f"""
Still serving; Ctrl-C ends it. Call it as any of the demo's callers:

  [bold]curl[/] {url}/v1/chat/completions -H 'authorization: Bearer {CALLERS[3].secret}' \\
       -d '{{"model": "gpt-5-mini", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  [bold]OPENAI_BASE_URL[/]={url}/v1  [bold]OPENAI_API_KEY[/]={CALLERS[3].secret}
  [bold]ANTHROPIC_BASE_URL[/]={url}  [bold]ANTHROPIC_API_KEY[/]={CALLERS[2].secret}

and look at the ledger:

  tollkeeper --config {config_path} report --by team,model
""",
        soft_wrap=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
