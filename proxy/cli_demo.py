"""`tollkeeper demo`."""

import click

from proxy.cli import Failure


@click.command()
@click.option("--once", is_flag=True, help="End when the story is told, instead of serving on.")
def command(once: bool) -> None:
    """See it work: no network, no provider key.

    Starts a simulated provider and the proxy, calls them with the official OpenAI, Anthropic and
    Google SDKs, and shows costs arriving and a budget refusing. Exit code 1 if anything it claims
    does not hold.
    """
    from proxy.cli_output import console  # noqa: PLC0415
    from proxy.demo.proxy_process import ProxyFailed  # noqa: PLC0415
    from proxy.demo.run import run  # noqa: PLC0415

    try:
        holds = run(console(), once=once)
    except ImportError as exc:
        missing = exc.name or str(exc)
        raise Failure(
            f"the demo calls the official SDKs, and {missing} is missing: install tollkeeper[demo]"
        ) from exc
    except ProxyFailed as exc:
        raise Failure(str(exc)) from exc
    if not holds:
        raise click.exceptions.Exit(1)
