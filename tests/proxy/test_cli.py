"""The frame of the command: help, errors, exit codes, formats."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import COMMANDS, main
from proxy.cli_output import csv_cell, plain, print_rows, timestamp
from tests.proxy.cli_runner import Tollkeeper

ROOT = Path(__file__).parents[2]
AVAILABLE = [name for name in COMMANDS if name != "demo"]


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    return Tollkeeper(tmp_path)


def python(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_help_lists_every_command_without_importing_any() -> None:
    code = (
        "import sys; from proxy.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    result = python("-c", code)
    assert all(f"  {name} " in result.stdout for name in COMMANDS)
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert not loaded & {"sqlalchemy", "rich", "httpx", "alembic", "yaml", "openai"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_version() -> None:
    assert "tollkeeper" in CliRunner().invoke(main, ["--version"]).stdout


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["keys", "create"], ["report", "--format", "xml"], ["check", "-x"]]
)
def test_usage_errors(tollkeeper: Tollkeeper, arguments: list[str]) -> None:
    assert tollkeeper.run(*arguments).exit_code == 2


def test_configuration_errors_one_line_each(tmp_path: Path) -> None:
    broken = Tollkeeper(tmp_path, "server: {pord: 1}\nadmin: {key: '${NOT_SET_ANYWHERE}'}\n")
    result = broken.run("keys", "list")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"tollkeeper: {broken.path}:1: providers: none declared, so there is nothing to forward "
        "calls to",
        f"tollkeeper: {broken.path}:1: server.pord: unknown key, did you mean port?",
        f"tollkeeper: {broken.path}:2: admin.key: environment variable NOT_SET_ANYWHERE is not set",
    ]


def test_missing_configuration(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "x.yaml"), "db", "current"])
    assert result.exit_code == 2
    assert "cannot read the configuration: No such file" in result.stderr


def test_database_errors(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("keys", "list")
    assert result.exit_code == 2
    assert result.stderr == (
        f"tollkeeper: database {tollkeeper.directory}/tollkeeper.db does not exist\n"
    )
    (tollkeeper.directory / "tollkeeper.db").write_text("this is not a database at all")
    result = tollkeeper.run("report")
    assert result.exit_code == 2
    assert "is not a SQLite database" in result.stderr


def test_a_bug_is_one_line_and_a_traceback_only_if_asked_for(
    tollkeeper: Tollkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on\npurpose")

    monkeypatch.setattr("proxy.cli_prices.tables", broken)
    result = tollkeeper.run("prices", "list")
    assert result.exit_code == 3
    assert result.stderr == (
        "tollkeeper: internal error, please report it: ZeroDivisionError: on purpose "
        "(--debug shows where)\n"
    )
    result = CliRunner().invoke(
        main, ["--debug", "--config", str(tollkeeper.path), "prices", "list"]
    )
    assert "Traceback" in result.stderr
    assert result.exit_code == 3


def test_a_closed_pipe_is_fine(tollkeeper: Tollkeeper) -> None:
    """The reader is gone before anything is written, and there is more than a pipe holds."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    arguments = ("-m", "proxy", "--config", str(tollkeeper.path), "prices", "show", "*")
    result = python(*arguments, "--format", "json", stdout=write_end)
    os.close(write_end)
    assert (result.returncode, result.stderr) == (0, "")


ROWS = [{"name": "=1+1", "cost_usd": "-0.5", "tags": {"a": 1}}, {"name": "b", "globs": ["x", "y"]}]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(iter(ROWS), ["name"], "json")
    assert json.loads(capsys.readouterr().out) == ROWS
    print_rows([], ["name"], "json")
    assert json.loads(capsys.readouterr().out) == []


def test_ndjson(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(iter(ROWS), ["name"], "ndjson")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS


def test_csv_is_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(iter(ROWS), ["name", "cost_usd", "tags", "globs"], "csv")
    assert capsys.readouterr().out.splitlines() == [
        "name,cost_usd,tags,globs",
        "'=1+1,-0.5,a=1,",
        'b,,,"x, y"',
    ]


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1-1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_cell_escapes_formulas(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, "-1", "-0.000001", "1e3", "a=b", ""])
def test_csv_cell_leaves_the_rest_alone(value: object) -> None:
    assert csv_cell(value) == str(value)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(iter(ROWS), ["name", "cost_usd"], "table", title="Rows")
    out = capsys.readouterr().out
    assert "Rows" in out
    assert "cost usd" in out
    print_rows([], ["name"], "table", empty="nothing here")
    assert capsys.readouterr() == ("", "nothing here\n")


def test_cells() -> None:
    assert [plain(value) for value in (None, True, False, [1, "x"])] == ["", "yes", "no", "1, x"]
    assert timestamp(None) == ""
    assert timestamp(0) == "1970-01-01T00:00:00Z"
