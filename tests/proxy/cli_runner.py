"""Commands in-process, against a directory with a configuration."""

from pathlib import Path

from click.testing import CliRunner, Result

from proxy.cli import main

CONFIG = """
providers:
  openai: {base_url: "http://127.0.0.1:9", api_key: upstream-key}
  anthropic: {base_url: "http://127.0.0.1:9", api_key: client}
  gemini: {base_url: "http://127.0.0.1:9/prefix", api_key: upstream-key}
organizations:
  acme:
    teams:
      search:
        keys: [{name: search-prod, key: tk-search-prod-secret-key, user: ann}]
        projects: {ranking: }
      support:
budgets:
  - {scope: organization/acme, limit_usd: 100, period: month}
  - {scope: team/acme/search, limit_usd: 0.05, period: total}
  - {scope: key/search-prod, limit_usd: 0.5, period: request}
  - {scope: user/acme/ann, limit_tokens: 100000, period: total, providers: [openai]}
"""


class Tollkeeper:
    """`tollkeeper --config FILE ...` in a directory of its own."""

    def __init__(self, directory: Path, config: str = CONFIG) -> None:
        self.directory = directory
        self.path = directory / "config.yaml"
        self.path.write_text(config)

    def run(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(main, ["--config", str(self.path), *arguments], input=stdin)

    def ok(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """stdout of a command that succeeds."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout
