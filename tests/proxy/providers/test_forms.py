"""Multipart forms: what is read is what a provider reads, or the form is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refusal
from proxy.providers.forms import PARTS_MAX, check_boundary, is_form, parse_form

BOUNDARY = "b0undary"


def part(name: str, content: bytes, *, file: bool = False, extra: str = "") -> bytes:
    filename = '; filename="a.wav"' if file else ""
    head = f'Content-Disposition: form-data; name="{name}"{filename}\r\n{extra}'
    return f"--{BOUNDARY}\r\n{head}\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


WHOLE = form(
    part("model", b"whisper-1"),
    part("file", b"RIFF\r\n--nearly\r\n\x00\xff", file=True, extra="Content-Type: audio/wav\r\n"),
    part("prompt", "é".encode()),
)


def test_fields_and_files() -> None:
    assert is_form(WHOLE)
    parsed = parse_form(WHOLE)
    assert parsed.fields == {"model": "whisper-1", "prompt": "é"}
    (file,) = parsed.files
    assert file.name == "file"
    assert WHOLE[file.start : file.end] == b"RIFF\r\n--nearly\r\n\x00\xff"
    assert parsed.text_bytes == len("whisper-1") + 2


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text(), max_size=9))
def test_whatever_the_fields_hold(fields: dict[str, str]) -> None:
    parts = [part(name, text.encode("utf-8", "surrogatepass")) for name, text in fields.items()]
    usable = not any("\r\n--" + BOUNDARY in text for text in fields.values())
    if parts and usable:
        assert parse_form(form(*parts)).fields == fields


@given(st.integers(0, len(WHOLE) - 3))  # the last line's own end may be missing
def test_a_form_cut_short_is_refused(at: int) -> None:
    with pytest.raises(Refusal):
        parse_form(WHOLE[:at])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (form(part("model", b"a"), part("model", b"b")), "twice"),
        (form(part("x", b"a", extra="Content-Transfer-Encoding: base64\r\n")), "encoding"),
        (form(f"--{BOUNDARY}\r\nX: y\r\n\r\nz\r\n".encode()), "lacks"),
        (form(part('a"; x="', b"z")), "lacks"),
        (form(part("x", b"\xff")), "UTF-8"),
        (form(part("x", b"y" * 2**21)), "longer"),
        (form(*(part(f"x{n}", b"y") for n in range(PARTS_MAX + 1))), "more than"),
        (WHOLE.replace(b"\r\n--b0undary\r\n", b"\r\n--b0undaryX\r\n", 1), "also part"),
        (b"--\r\n", "boundary"),
        (b"--" + b"x" * 71 + b"\r\n", "boundary"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse_form(body)


@pytest.mark.parametrize(
    "announced",
    [
        b"multipart/form-data; boundary=b0undary",
        b'Multipart/Form-Data; charset=utf-8; boundary="b0undary"',
        b"multipart/form-data;boundary=b0undary; charset=utf-8",
    ],
)
def test_the_boundary_announced(announced: bytes) -> None:
    check_boundary(announced, WHOLE)
    with pytest.raises(Refusal):
        check_boundary(announced, WHOLE.replace(b"b0undary", b"b0undarz", 1))


@pytest.mark.parametrize(
    "announced",
    [
        b"",
        b"application/json",
        b"application/x-www-form-urlencoded; boundary=b0undary",
        b"multipart/form-data",
        b"multipart/form-data; boundary=b0undar",
        b"multipart/form-data; boundary=other",
    ],
)
def test_another_boundary_is_refused(announced: bytes) -> None:
    with pytest.raises(Refusal, match="boundary"):
        check_boundary(announced, WHOLE)
