"""Where price data is found, and what is said when it is not."""

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

from pricing.errors import SourceError
from pricing.sources import files
from pricing.sources.files import GENAI_PRICES, LITELLM, Kind, from_bytes, from_path, installed
from pricing.sources.load import load, load_installed, load_path

DAY = "2026-11-21"
MAP = {
    "m": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1.5e-06,
        "output_cost_per_token": 2e-06,
    }
}
DATA = """
providers: list[Provider] = [
    Provider(id='openai', models=[ModelInfo(id='m', match=ClauseEquals(equals='m'),
        prices=ModelPrice(input_mtok=Decimal('1.5'), output_mtok=Decimal('2')))])
]
"""
CONTENT = {LITELLM: json.dumps(MAP), GENAI_PRICES: DATA}


def unpacked(directory: Path, kind: Kind, version: str = "9.8.7") -> Path:
    """A package as it is installed; returns its file."""
    (directory / f"{kind.package}-{version}.dist-info").mkdir(parents=True)
    file = directory / kind.package / kind.member
    file.parent.mkdir()
    file.write_text(CONTENT[kind])
    return file


def a_wheel(path: Path, kind: Kind, *, version: str | None = "9.8.7") -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{kind.package}/__init__.py", "raise RuntimeError")
        wheel.writestr(f"{kind.package}/{kind.member}", CONTENT[kind])
        if version is not None:
            wheel.writestr(f"{kind.package}-{version}.dist-info/METADATA", "")
    return path


@pytest.mark.parametrize("kind", [LITELLM, GENAI_PRICES], ids=lambda kind: kind.name)
def test_a_file_a_directory_and_a_wheel_are_the_same(tmp_path: Path, kind: Kind) -> None:
    file = unpacked(tmp_path / "unpacked", kind)
    places = [file, file.parent, file.parent.parent, a_wheel(tmp_path / "x.whl", kind)]
    sources = [load_path(place, DAY) for place in places]
    for source in sources:
        assert source == sources[0]
        assert (source.name, source.short_name) == (f"{kind.name} 9.8.7", kind.name)
        assert list(source.entries) == [("openai", "m")]
        assert source.entries["openai", "m"]["input_cost_per_token"] == "0.0000015"


def test_a_file_alone_says_no_version(tmp_path: Path) -> None:
    for name, content, expected in (("a.json", CONTENT[LITELLM], LITELLM), ("b", DATA, None)):
        (tmp_path / name).write_text(content)
        found = from_path(tmp_path / name)
        assert (found.kind, found.version) == (expected or GENAI_PRICES, "unknown")
    assert load_path(a_wheel(tmp_path / "w", LITELLM, version=None), DAY).name == "litellm unknown"


def test_what_is_installed_is_read_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = unpacked(tmp_path, LITELLM)
    (file.parent / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, LITELLM.package, raising=False)  # another test's
    assert installed(LITELLM).where == str(file)


def test_of_two_sources_one_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"litellm is not installed.*; genai-prices is not"):
        load_installed(DAY)
    with pytest.raises(SourceError, match="litellm is not installed"):
        installed(LITELLM)

    class Spec:
        submodule_search_locations = (str(unpacked(tmp_path, GENAI_PRICES).parent),)

    monkeypatch.setattr(files, "find_spec", {"genai_prices": Spec}.get)
    assert [source.short_name for source in load_installed(DAY)] == ["genai-prices"]


def test_what_is_no_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"no model_prices.* or data.py in it"):
        from_path(tmp_path)
    with pytest.raises(SourceError, match="No such file"):
        from_path(tmp_path / "nothing.json")
    with pytest.raises(SourceError, match="not a wheel"):
        from_bytes(b"PK\3\4 and no more", "x.whl")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as wheel:
        wheel.writestr("other/data.py", DATA)
    with pytest.raises(SourceError, match="a wheel of neither litellm nor genai-prices"):
        from_bytes(empty.getvalue(), "other.whl")
    monkeypatch.setattr(files, "FILE_BYTES_MAX", 10)
    with pytest.raises(SourceError, match="larger than 0 MB"):
        from_bytes(b"x" * 11, "large")
    with pytest.raises(SourceError, match="larger than"):
        from_path(a_wheel(tmp_path / "large.whl", LITELLM))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"providers = 5",
        b"[1]",
        b"[{}]",
        b"providers = [f(1)]",
        b"x = [",
        b"[" * 9_999,
    ],
)
def test_what_is_neither_is_an_error_that_names_the_file(content: bytes) -> None:
    with pytest.raises(SourceError, match=r"^there: "):
        load(from_bytes(content, "there"), DAY)
