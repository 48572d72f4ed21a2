"""`tollkeeper serve`, and how personal mode introduces itself."""

import os
import sys
from pathlib import Path

import click

from proxy.cli import Failure, Invocation, pass_invocation
from proxy.config import Config, ConfigError
from proxy.config_loader import state_dir
from proxy.personal import KEY_PREFIX, ensure_key
from proxy.providers.registry import HOSTS

# Variables of the SDKs whose bare paths are routed; the base URL of others has a prefix.
_URL_VARIABLES = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GOOGLE_GEMINI_BASE_URL",
}


@click.command()
@pass_invocation
def command(invocation: Invocation) -> None:
    """Run the proxy until SIGTERM or Ctrl-C, which let calls in flight finish.

    Without a configuration file: personal mode, on loopback, for every provider whose usual
    environment variable is set.
    """
    path = invocation.config_path
    config = invocation.load()
    _check_keys(config)
    if path is None:
        introduce(config, state_dir(os.environ))
        config = invocation.load()  # with the key there is by now
    from proxy.serve import serve  # noqa: PLC0415 - not before it is known to be of use

    sys.exit(serve(path, config))


def _check_keys(config: Config) -> None:
    """Settings made for SDKs are easily in the environment of the proxy too."""
    wrong = [
        f"providers.{name}.api_key is a Tollkeeper key; the provider needs its own"
        for name, provider in config.providers.items()
        if provider.api_key.startswith(KEY_PREFIX)
    ]
    if wrong:
        raise ConfigError(wrong)


def introduce(config: Config, directory: Path) -> None:
    """Make the key of personal mode if there is none; print it and what to do with it."""
    if not config.providers:
        variables = ", ".join(host.variables[0] for host in HOSTS.values() if host.variables)
        raise Failure(
            f"no configuration file, and none of {variables} is set: there is nothing to forward "
            "calls to. `tollkeeper demo` needs neither."
        )
    secret = ensure_key(directory)
    origin = f"http://{config.server.host}:{config.server.port}"
    lines = [f"Personal mode at {origin}, for this machine only. Data in {directory}.", ""]
    if secret:
        lines += [f"Your key, shown only now:  {secret}", ""]
    else:
        lines += [f"Your key is the one shown at the first start ({KEY_PREFIX}...).", ""]
    for name in config.providers:
        host = HOSTS[name]
        if name in _URL_VARIABLES:
            lines.append(f"  export {_URL_VARIABLES[name]}={origin}{host.sdk_path}")
        else:
            lines.append(f"  # {name}: base URL {origin}/{name}{host.sdk_path}")
        lines.append(f"  export {host.variables[0]}={secret or KEY_PREFIX + '...'}")
    lines += ["", "Set these where your program runs, not where the proxy does.", ""]
    sys.stdout.write("\n".join(lines))
    sys.stdout.flush()
