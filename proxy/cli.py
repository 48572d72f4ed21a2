"""The `tollkeeper` command: its subcommands, loaded when called, and the one place that turns
errors into a line and an exit code.

Exit codes: 0 ok, 1 a finding (or a refusal), 2 usage, configuration or database, 3 a bug.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from db.errors import reason
from proxy import __version__
from proxy.config import Config, ConfigError
from proxy.heap import look_rarely

DEBUG_VARIABLE = "TOLLKEEPER_DEBUG"
GARBAGE = 50_000

# name -> (module, what --help says); importing a module costs up to half a second
COMMANDS = {
    "serve": ("proxy.cli_serve", "Run the proxy."),
    "demo": ("proxy.cli_demo", "See it work: no network, no provider key."),
    "check": ("proxy.cli_check", "Read the configuration and say what it means."),
    "report": ("proxy.cli_report", "What was spent, by call or grouped."),
    "keys": ("proxy.cli_keys", "Make, list, revoke and rotate API keys."),
    "budgets": ("proxy.cli_budgets", "List budgets, explain what one would say to a call."),
    "alerts": ("proxy.cli_alerts", "List alerts, send one through every channel."),
    "prices": ("proxy.cli_prices", "List, show, compare, import price tables; reprice calls."),
    "reconcile": ("proxy.cli_reconcile", "Compare the ledger with a provider's cost export."),
    "db": ("proxy.cli_db", "Migrate the database."),
    "audit": ("proxy.cli_audit", "Who changed what."),
    "verify": ("proxy.cli_verify", "Check the ledger's invariants on the whole database."),
}


class Failure(click.ClickException):
    """Ends the command with lines on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: Any = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"tollkeeper: {line}", file=file or sys.stderr)


class Invocation:
    """The options before the command, and the configuration they lead to."""

    def __init__(self, config_option: str | None) -> None:
        self._config_option = config_option

    @property
    def config_path(self) -> Path | None:
        """The file in use; None in personal mode."""
        from proxy.config_loader import find  # noqa: PLC0415

        return find(self._config_option, os.environ)

    def load(self) -> Config:
        """Raises ConfigError."""
        from proxy.config_loader import load  # noqa: PLC0415

        return load(self.config_path, os.environ)


pass_invocation = click.make_pass_decorator(Invocation)


class Commands(click.Group):
    """Subcommands by name of module; errors become one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        look_rarely(GARBAGE)  # most of what a command makes is modules
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _silence_stdout()
            ctx.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            raise click.Abort from None
        except Exception as exc:
            _fail(exc, debug=ctx.params["debug"])


def _silence_stdout() -> None:
    """The reader went away (`| head`): what is still buffered has nowhere to go."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(exc: Exception, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    raise _failure(exc) from exc


def _failure(exc: Exception) -> Failure:
    if isinstance(exc, ConfigError):
        return Failure(str(exc))
    if _is_known(exc):
        return Failure(" ".join(str(exc).split()))
    if _is_a(exc, "sqlalchemy.exc", "OperationalError"):  # its own text goes on with the statement
        return Failure(f"database: {reason(exc)}")
    if isinstance(exc, OSError) and exc.strerror:
        where = f"{exc.filename}: " if exc.filename else ""
        return Failure(f"{where}{exc.strerror}")
    what = " ".join(f"{type(exc).__name__}: {exc}".split())[:500]
    return Failure(f"internal error, please report it: {what} (--debug shows where)", 3)


def _is_known(exc: Exception) -> bool:
    """Errors made for people, of packages that are imported only if they were used."""
    bases = (
        ("db.errors", "DatabaseError"),
        ("db.journal_files", "JournalError"),
        ("db.ledger_types", "LedgerError"),
        ("pricing.errors", "PricingError"),
    )
    return any(_is_a(exc, *base) for base in bases)


def _is_a(exc: Exception, module: str, name: str) -> bool:
    return module in sys.modules and isinstance(exc, getattr(sys.modules[module], name))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_option",
    metavar="FILE",
    help="Configuration file [default: $TOLLKEEPER_CONFIG, ./config.yaml, else personal mode].",
)
@click.option("--debug", is_flag=True, envvar=DEBUG_VARIABLE, help="Show where errors come from.")
@click.version_option(__version__, prog_name="tollkeeper")
@click.pass_context
def main(ctx: click.Context, config_option: str | None, debug: bool) -> None:
    """Spend control for LLM APIs: a transparent proxy with exact costs and hard budgets."""
    ctx.obj = Invocation(config_option)


class Subcommands(click.Group):
    """Some of its commands are in modules that only they need."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._elsewhere = elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        command = importlib.import_module(self._elsewhere[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


def subgroup(
    help: str, *, elsewhere: Mapping[str, str] | None = None
) -> Callable[[Callable[[], None]], Subcommands]:
    """A command with subcommands of its own; `elsewhere`: name -> module of its `command`."""
    return click.group(
        cls=Subcommands,
        help=help,
        elsewhere=elsewhere or {},
        context_settings={"help_option_names": ["-h", "--help"]},
    )
