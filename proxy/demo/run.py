"""The demo from start to end: provider, proxy, SDKs, screen, and a check of every claim made."""

import asyncio
import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.live import Live

from proxy.config_loader import load
from proxy.demo.callers import Sdks
from proxy.demo.ledger_view import LedgerView, ledger_view
from proxy.demo.provider import SimulatedProvider
from proxy.demo.proxy_process import free_port, running
from proxy.demo.scenario import CALLERS, UPSTREAM_KEY, config_yaml
from proxy.demo.screen import View, draw, print_lines, summary
from proxy.demo.serving import served
from proxy.demo.story import Story

INTRODUCTION = """
Five programs of three teams call OpenAI, Anthropic and Google models through Tollkeeper. The
provider is simulated; the SDKs, the proxy, the prices and the ledger are the real ones.
"""
CHUNK_DELAY_S = 0.012
POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Stage:
    """What is up and running."""

    url: str
    config_path: Path
    provider: SimulatedProvider
    sdks: Sdks


def run(console: Console, *, once: bool) -> bool:
    """Run the demo; True if everything it claims was true. Raises ProxyFailed, ImportError."""
    with contextlib.ExitStack() as stack:
        with console.status("Starting a simulated provider, the proxy, and the official SDKs ..."):
            stage = _set_up(stack)
        return asyncio.run(_run(console, stage, once=once))


def _set_up(stack: contextlib.ExitStack) -> Stage:
    importing = stack.enter_context(ThreadPoolExecutor(1)).submit(Sdks)
    provider = SimulatedProvider(UPSTREAM_KEY, chunk_delay_s=CHUNK_DELAY_S)
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="tollkeeper-demo-")))
    upstream = stack.enter_context(served(provider))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config_path = directory / "config.yaml"
    config_path.write_text(config_yaml(upstream, port, free_port()))
    stack.enter_context(running(config_path, url))
    return Stage(url, config_path, provider, importing.result())


async def _run(console: Console, stage: Stage, *, once: bool) -> bool:
    async with ledger_view(load(stage.config_path, {})) as ledger:
        story = Story(stage.url, stage.provider, stage.sdks, ledger)
        await _tell(console, story)
        holds = await _conclude(console, story, ledger)
        if not once:
            _print_invitation(console, stage)
            await _print_calls(console, story.view, ledger)
    return holds


async def _tell(console: Console, story: Story) -> None:
    view = story.view
    view.height = console.size.height
    console.print(INTRODUCTION)
    if console.is_terminal:
        with Live(draw(view), console=console, auto_refresh=False) as live:
            await story.tell(lambda _new: live.update(draw(view), refresh=True))
        return
    await story.tell(lambda new: print_lines(console, new))
    for refused in view.refusals[:1]:
        line = f"{refused.exception}: 429 {refused.code}: {refused.message}"
        console.print(line, soft_wrap=True, markup=False)


async def _conclude(console: Console, story: Story, ledger: LedgerView) -> bool:
    console.print()
    console.print(summary(story.view, await ledger.by_team()))
    claims = await story.claims()
    for claim in claims:
        mark = "[green]✓[/]" if claim.holds else "[bold red]✗[/]"
        console.print(f" {mark} {claim.text}", soft_wrap=True)
    return all(claim.holds for claim in claims)


def _print_invitation(console: Console, stage: Stage) -> None:
    support, chat = CALLERS[2], CALLERS[3]
    console.print(
        f"""
Still serving; Ctrl-C ends it. Call it yourself, as one of the callers above:

  [bold]curl[/] {stage.url}/v1/chat/completions -H 'authorization: Bearer {chat.secret}' \\
    -d '{{"model": "{chat.model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  [bold]OPENAI_BASE_URL[/]={stage.url}/v1   [bold]OPENAI_API_KEY[/]={chat.secret}
  [bold]ANTHROPIC_BASE_URL[/]={stage.url}   [bold]ANTHROPIC_API_KEY[/]={support.secret}

  {_own_name()} --config {stage.config_path} report --by team,model
""",
        soft_wrap=True,
        highlight=False,
    )


def _own_name() -> str:
    return sys.argv[0] if Path(sys.argv[0]).name == "tollkeeper" else "tollkeeper"


async def _print_calls(console: Console, view: View, ledger: LedgerView) -> None:
    """Until Ctrl-C, a line for each further call."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            print_lines(console, view.add(await ledger.calls()))
            await asyncio.sleep(POLL_S)
