"""What the demo shows: calls as they reach the ledger, budgets filling up, refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proxy.demo.callers import Refused

ROWS_SHOWN_MAX = 12
OTHER_LINES = 18  # of the screen: title, budgets, refusal
WIDTH_MAX = 100
HIGH_SHARE = Decimal("0.6")
_SHOWN_DIGITS = Decimal("0.000001")

Row = Mapping[str, Any]


@dataclass(slots=True)
class View:
    """Everything on the screen; replaced piece by piece, drawn as a whole."""

    url: str
    limits: Mapping[str, str]
    rows: list[Row] = field(default_factory=list)  # in the order they came into the ledger
    refusals: list[Refused] = field(default_factory=list)
    in_flight: int = 0
    height: int = 40  # lines of the terminal

    @property
    def rows_shown(self) -> int:
        return max(1, min(ROWS_SHOWN_MAX, self.height - OTHER_LINES))

    def add(self, rows: Sequence[Row]) -> list[Row]:
        """Take the whole ledger; returns what is new in it."""
        known = {row["request_id"] for row in self.rows}
        new = [row for row in rows if row["request_id"] not in known]
        self.rows += new
        return new

    def spent(self, scope: str) -> Decimal:
        """USD charged to a scope of the demo: the organization, or a team."""
        kind, _, path = scope.partition("/")
        team = path.rpartition("/")[2]
        costs = (Decimal(r["cost_usd"]) for r in self.rows if kind != "team" or r["team"] == team)
        return sum(costs, Decimal(0))


def dollars(usd: Decimal) -> str:
    return f"${usd.quantize(_SHOWN_DIGITS)}"


def draw(view: View) -> RenderableType:
    calls, budgets = _calls(view.rows, view.rows_shown), _budgets(view)
    parts: list[RenderableType] = [_title(view), "", calls, "", budgets, ""]
    if view.refusals:
        parts.append(_refusal(view.refusals))
    return Group(*parts)


def _title(view: View) -> RenderableType:
    title = Text.assemble(("Tollkeeper", "bold"), " at ", (view.url, "cyan"))
    title.append(f"   {len(view.rows)} calls in the ledger", "bold")
    title.append(f", {view.in_flight} in flight", "dim")
    return title


def _calls(rows: Sequence[Row], shown: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for name, width in (("caller", 12), ("model", 22), ("route", 21), ("", 6)):
        table.add_column(name, no_wrap=True, min_width=width)
    for name, width in (("in", 5), ("cached", 6), ("out", 5), ("cost", 9)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for row in rows[-shown:]:
        table.add_row(*call_cells(row))
    for _ in range(shown - len(rows)):
        table.add_row()
    return table


def call_cells(row: Row) -> list[str | Text]:
    cached = row["cache_read_tokens"]
    return [
        f"{row['team']}/{row['user']}",
        row["model"],
        row["route"],
        Text("stream" if row["stream"] else "", "dim"),
        f"{row['input_tokens']:,}",
        f"{cached:,}" if cached else "",
        f"{row['output_tokens']:,}",
        Text(dollars(Decimal(row["cost_usd"])), "green"),
    ]


def _budgets(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    for limit_scope, limit_usd in view.limits.items():
        spent, limit = view.spent(limit_scope), Decimal(limit_usd)
        share = spent / limit
        refused = any(r.caller.team == limit_scope.rpartition("/")[2] for r in view.refusals)
        style = "red" if refused else "yellow" if share > HIGH_SHARE else "green"
        table.add_row(
            limit_scope,
            ProgressBar(100, float(share * 100), width=30, complete_style=style),
            f"{dollars(spent)} of ${limit} a day",
            Text(f"refusing, {dollars(limit - spent)} left", "bold red") if refused else "",
        )
    return table


def _refusal(refusals: Sequence[Refused]) -> Panel:
    first = refusals[0]
    text = Text.assemble((f"429 {first.code}  ", "bold"), first.message, overflow="fold")
    who = f"{first.caller.team}/{first.caller.user}"
    again = f", and {len(refusals) - 1} more" if len(refusals) > 1 else ""
    title = f"[bold red]{first.exception}[/] in the program of {who}{again}"
    return Panel(text, title=title, title_align="left", width=WIDTH_MAX, border_style="red")


def summary(view: View, teams: Sequence[Row]) -> Table:
    """What each team spent, as `tollkeeper report --by team` has it."""
    table = Table(box=box.SIMPLE_HEAD, title="Spent by team", title_justify="left", pad_edge=False)
    table.add_column("team")
    for name in ("calls", "input tokens", "output tokens", "cost", "refused"):
        table.add_column(name, justify="right")
    for team in teams:
        refused = sum(r.caller.team == team["team"] for r in view.refusals)
        table.add_row(
            team["team"],
            str(team["calls"]),
            f"{team['input_tokens']:,}",
            f"{team['output_tokens']:,}",
            Text(f"${team['cost_usd']}", "bold green"),
            Text(str(refused), "bold red") if refused else "",
        )
    return table


def print_lines(console: Console, rows: Sequence[Row]) -> None:
    """One call per line, where there is nothing to draw on."""
    for row in rows:
        cells = [cell for cell in call_cells(row) if str(cell)]
        console.print(*cells, sep="  ")
