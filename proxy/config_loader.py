"""Find, read, complete and check the configuration; personal mode where there is no file."""

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from proxy.config import (
    Config,
    ConfigError,
    Database,
    Journal,
    Key,
    Organization,
    Provider,
    Team,
    Telemetry,
)
from proxy.config_checks import check
from proxy.config_clouds import placed
from proxy.config_reader import Problems, compose, read
from proxy.config_telemetry import completed
from proxy.providers.host import Host
from proxy.providers.registry import HOSTS

CONFIG_VARIABLE = "TOLLKEEPER_CONFIG"
CONFIG_FILE = "config.yaml"
CONFIG_BYTES_MAX = 4 * 2**20
PERSONAL = "personal"  # organization, team and key of personal mode
_SQLITE = "sqlite+aiosqlite:///"
_UNKNOWN = Host("", "")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def find(option: str | None, env: Mapping[str, str]) -> Path | None:
    """The file to load: the option, $TOLLKEEPER_CONFIG, ./config.yaml, or none (personal mode)."""
    named = option or env.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    local = Path(CONFIG_FILE)
    return local if local.exists() else None


def load(path: Path | str | None, env: Mapping[str, str]) -> Config:
    """The checked configuration; `None` is personal mode.

    Relative paths inside the file are relative to it, and come out absolute. Providers come out
    with base URL, dialect and key filled in. Raises ConfigError with every problem found.
    """
    if path is None:
        return personal(env)
    path = Path(path)
    problems = Problems(str(path))
    config = read(compose(_text(path), str(path)), env, problems)
    providers = {
        name: _complete(name, provider, env, problems)
        for name, provider in config.providers.items()
    }
    telemetry = completed(config.telemetry, env, problems)
    config = replace(config, providers=providers, telemetry=telemetry)
    check(config, problems)
    problems.raise_if_any()
    return _absolute(config, path.absolute().parent)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
        if len(data) > CONFIG_BYTES_MAX:
            raise ConfigError([f"{path}: larger than {CONFIG_BYTES_MAX} bytes"])
        return data.decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError([f"{path}: cannot read the configuration: {exc.strerror}"]) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{path}: not UTF-8 text (byte {exc.start})"]) from exc


def _complete(
    name: str, provider: Provider, env: Mapping[str, str], problems: Problems
) -> Provider:
    known = HOSTS.get(name, _UNKNOWN)
    provider = placed(name, provider, env)
    base_url = provider.base_url.rstrip("/") or known.base_url
    api_key = provider.api_key
    usual = known.base_url in ("", base_url)  # never another host's key
    if known.variables and usual and not provider.azure.tenant_id:
        api_key = api_key or _usual_key(known, env)
        if not api_key:
            variables = " or ".join(known.variables)
            problems.add_check(f"providers.{name}.api_key", f"missing, and {variables} is not set")
    own = provider.dialect in ("", known.dialect)
    return replace(
        provider,
        base_url=base_url,
        dialect=provider.dialect or known.dialect,
        api_key=api_key,
        prices=provider.prices or known.prices or name,
        clamp_field=provider.clamp_field or (known.clamp_field if own else ""),
    )


def _usual_key(known: Host, env: Mapping[str, str]) -> str:
    return next((env[name] for name in known.variables if env.get(name)), "")


def _absolute(config: Config, directory: Path) -> Config:
    url = config.database.url
    location, _, query = url.removeprefix(_SQLITE).partition("?")
    if url.startswith(_SQLITE) and location and location != ":memory:":
        url = f"{_SQLITE}{directory / location}" + (f"?{query}" if query else "")
    return replace(
        config,
        database=replace(config.database, url=url),
        journal=replace(config.journal, dir=str(directory / config.journal.dir)),
        middleware_dir=str(directory / config.middleware_dir),
    )


def state_dir(env: Mapping[str, str]) -> Path:
    """Where personal mode keeps its data."""
    base = env.get("XDG_STATE_HOME") or Path(env.get("HOME") or Path.home(), ".local", "state")
    return Path(base) / "tollkeeper"


def personal(env: Mapping[str, str]) -> Config:
    """The configuration without a file: loopback, providers by environment, one key.

    The key is there once `proxy.personal.ensure_key` has made it. No provider is not an error
    here: reports need none.
    """
    directory = state_dir(env)
    providers = {
        name: Provider(
            base_url=known.base_url,
            dialect=known.dialect,
            api_key=key,
            prices=known.prices or name,
            clamp_field=known.clamp_field,
        )
        for name, known in HOSTS.items()
        if known.base_url and (key := _usual_key(known, env))
    }
    bedrock = placed("bedrock", Provider(), env)
    if bedrock.api_key:
        providers["bedrock"] = bedrock
    digest = read_personal_key(directory)
    keys = [Key(name=PERSONAL, key_sha256=digest)] if digest else []
    return Config(
        telemetry=completed(Telemetry(), env, Problems("")),
        database=Database(url=f"{_SQLITE}{directory / 'tollkeeper.db'}"),
        journal=Journal(dir=str(directory / "journal")),
        providers=providers,
        organizations={PERSONAL: Organization(teams={PERSONAL: Team(keys=keys)})},
    )


def personal_key_path(directory: Path) -> Path:
    return directory / "personal-key.sha256"


def read_personal_key(directory: Path) -> str:
    """SHA-256 of the personal key, "" if none was made yet. Raises ConfigError."""
    path = personal_key_path(directory)
    try:
        digest = path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{path}: cannot read the personal key: {exc}"]) from exc
    if not _HEX.match(digest):
        raise ConfigError([f"{path}: expected 64 hex digits; remove it to make a new key"])
    return digest
