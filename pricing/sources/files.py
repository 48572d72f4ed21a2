"""The files prices are imported from: in an installed package, a wheel, a directory, or alone.

They are read as data. Nothing of a package is imported or executed.
"""

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pricing.errors import SourceError

FILE_BYTES_MAX = 64 * 2**20


class Kind(NamedTuple):
    """A package that ships prices."""

    name: str
    package: str
    member: str


LITELLM = Kind("litellm", "litellm", "model_prices_and_context_window_backup.json")
GENAI_PRICES = Kind("genai-prices", "genai_prices", "data.py")
KINDS = (LITELLM, GENAI_PRICES)


class Source(NamedTuple):
    """A source as found, and the entries made of it."""

    name: str  # "litellm 1.106.2"
    sha256: str
    entries: dict[tuple[str, str], dict[str, Any]]

    @property
    def short_name(self) -> str:
        return self.name.partition(" ")[0]


class Found(NamedTuple):
    """A file with prices and where it is from."""

    kind: Kind
    version: str
    where: str
    data: bytes


def installed(kind: Kind) -> Found:
    """Raises SourceError where the package is not installed."""
    spec = find_spec(kind.package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"{kind.name} is not installed: install it, or give a path or a URL")
    return _from_directory(Path(spec.submodule_search_locations[0]), (kind,))


def from_path(path: str | Path) -> Found:
    """A file or wheel, or a directory with an unpacked one. Raises SourceError."""
    path = Path(path)
    if path.is_dir():
        return _from_directory(path, KINDS)
    return from_bytes(_read(path), str(path), _version_beside(path))


def from_bytes(data: bytes, where: str, version: str = "unknown") -> Found:
    """A file or wheel, told apart by its name, else by its content. Raises SourceError."""
    if len(data) > FILE_BYTES_MAX:
        raise SourceError(f"{where}: larger than {FILE_BYTES_MAX >> 20} MB")
    if data.startswith(b"PK"):
        return _from_wheel(data, where)
    kind = LITELLM if data.lstrip()[:1] == b"{" else GENAI_PRICES
    for each in KINDS:
        if where.endswith(each.member):
            kind = each
    return Found(kind, version, where, data)


def _from_directory(directory: Path, kinds: tuple[Kind, ...]) -> Found:
    for kind in kinds:
        for file in (directory / kind.member, directory / kind.package / kind.member):
            if file.is_file():
                return from_bytes(_read(file), str(file), _version_beside(file))
    names = " or ".join(kind.member for kind in kinds)
    raise SourceError(f"{directory}: no {names} in it")


def _from_wheel(data: bytes, where: str) -> Found:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as wheel:
            for name in wheel.namelist():
                for kind in KINDS:
                    if name == f"{kind.package}/{kind.member}":
                        version = _version_of(kind, [n.partition("/")[0] for n in wheel.namelist()])
                        with wheel.open(name) as file:
                            inside = file.read(FILE_BYTES_MAX + 1)
                        return from_bytes(inside, f"{where}/{name}", version)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise SourceError(f"{where}: not a wheel: {error}") from error
    raise SourceError(f"{where}: a wheel of neither {' nor '.join(kind.name for kind in KINDS)}")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror or error}") from error


def _version_beside(file: Path) -> str:
    """The version of the installed or unpacked wheel a file lies in, by its dist-info."""
    directories = [each.name for each in file.resolve().parent.parent.glob("*.dist-info")]
    for kind in KINDS:
        if file.name == kind.member:
            return _version_of(kind, directories)
    return "unknown"


def _version_of(kind: Kind, names: list[str]) -> str:
    for name in names:
        if name.startswith(f"{kind.package}-") and name.endswith(".dist-info"):
            return name.removeprefix(f"{kind.package}-").removesuffix(".dist-info")
    return "unknown"
