"""Coding agents, run once without a person: what each is told and how it is installed."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.answers import Tool
from tests.compat.clients import GENERATE, MESSAGES, RESPONSES, Api
from tests.compat.programs import HERE, HOW, environment

PACKAGES = HERE / "agents/node_modules"
PROMPT = "Where does the rain stay?"
RUN_S = 60.0
NOTE = "note.txt"  # in the working directory


@dataclass(frozen=True)
class Agent:
    """`program` is a path below the packages. `wrong_key`, `payment`: requests that it sends with
    one, and where spent money is answered with 402."""

    name: str
    program: str
    api: Api
    says_spent: str
    wrong_key: int = 1
    payment: int = 1
    first: tuple[str, ...] = ()  # requests before the first call

    @property
    def path(self) -> Path:
        return PACKAGES / self.program

    def tool(self, directory: Path) -> Tool:
        """Its own tool that reads a file."""
        raise NotImplementedError

    def environment(self, url: str, key: str) -> dict[str, str]:
        raise NotImplementedError

    def options(self) -> list[str]:
        raise NotImplementedError

    def configure(self, home: Path, url: str) -> None:
        """Write its files, where variables do not do."""

    def run(self, directory: Path, url: str, key: str) -> subprocess.CompletedProcess[str]:
        """Let it answer the prompt; skips the test where it is not installed."""
        node = shutil.which("node")
        if node is None:
            pytest.skip(f"{self.name}: node is not installed")
        if not self.path.exists():
            pytest.skip(f"{self.name} is not installed; {HOW}")
        home, work = directory / "home", directory / "work"
        for folder in (home, work):
            folder.mkdir()
        (work / NOTE).write_text("rain-in-spain\n")
        self.configure(home, url)
        variables = {"HOME": str(home), "TMPDIR": str(directory), "NO_PROXY": "127.0.0.1"}
        variables["HTTPS_PROXY"] = "http://127.0.0.1:9"  # whatever else it calls is not answered
        return subprocess.run(
            [node, str(self.path), *self.options()],
            cwd=work,
            env=environment(**variables | self.environment(url, key)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )


class ClaudeCode(Agent):
    def tool(self, directory: Path) -> Tool:
        return Tool("Read", {"file_path": str(directory / "work" / NOTE)})

    def environment(self, url: str, key: str) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }

    def options(self) -> list[str]:
        return ["--model", self.api.model, "--allowed-tools", "Read", "-p", PROMPT]


class Codex(Agent):
    """With a provider of its configuration, and with its own at another address."""

    def tool(self, directory: Path) -> Tool:
        return Tool("exec_command", {"cmd": f"cat {NOTE}"})

    def environment(self, url: str, key: str) -> dict[str, str]:
        return {"TOLLKEEPER_KEY": key, "CODEX_API_KEY": key}

    def options(self) -> list[str]:
        alone = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
        return ["exec", *alone, PROMPT]

    def configure(self, home: Path, url: str) -> None:
        own = f'openai_base_url = "{url}/v1"'
        other = f"""
            model_provider = "tollkeeper"
            [model_providers.tollkeeper]
            name = "tollkeeper"
            base_url = "{url}/v1"
            env_key = "TOLLKEEPER_KEY"
            wire_api = "responses"
        """
        file = home / ".codex/config.toml"
        file.parent.mkdir()
        file.write_text(f'model = "{self.api.model}"\n{own if self.first else other}\n')


class GeminiCli(Agent):
    def tool(self, directory: Path) -> Tool:
        return Tool("read_file", {"file_path": NOTE})

    def environment(self, url: str, key: str) -> dict[str, str]:
        return {
            "GOOGLE_GEMINI_BASE_URL": url,
            "GEMINI_API_KEY": key,
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        }

    def options(self) -> list[str]:
        return ["-m", self.api.model, "-p", PROMPT]

    def configure(self, home: Path, url: str) -> None:
        settings = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "privacy": {"usageStatisticsEnabled": False},
            "general": {"disableAutoUpdate": True},
        }
        file = home / ".gemini/settings.json"
        file.parent.mkdir()
        file.write_text(json.dumps(settings))


_CODEX = "@openai/codex/bin/codex.js"
_QUOTA = "Quota exceeded"  # all that codex says of any 429
AGENTS = (
    ClaudeCode("claude-code", "@anthropic-ai/claude-code/cli-wrapper.cjs", MESSAGES, "budget"),
    # sends 401 and 402 again, whoever they come from
    Codex("codex", _CODEX, RESPONSES, _QUOTA, wrong_key=6, payment=6),
    Codex(
        *("codex-websocket", _CODEX, RESPONSES, _QUOTA),
        wrong_key=6,
        payment=6,
        first=("GET /v1/responses",),
    ),
    GeminiCli("gemini-cli", "@google/gemini-cli/bundle/gemini.js", GENERATE, "budget"),
)
