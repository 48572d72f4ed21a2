"""Multipart forms, as SDKs send audio and images: which parts there are, and where.

Nothing is copied but short text fields. What two parsers might read differently is refused, since
the provider would then see another model than the one that was priced.
"""

import re
from typing import NamedTuple

from proxy.providers.requests import bad

PARTS_MAX = 64
TEXT_BYTES_MAX = 2**20
BOUNDARY = re.compile(
    rb"multipart/form-data\s*;(?:[^;]*;)*?\s*boundary=(?:\"([^\"\\\r\n]{1,70})\"|([^\s;\",]{1,70}))"
    rb"\s*(?:;.*)?",
    re.IGNORECASE | re.DOTALL,
)
DISPOSITION = re.compile(
    rb"content-disposition:[ \t]*form-data;[ \t]*name=\"([^\"\\\r\n]*)\""
    rb"(;[ \t]*filename=\"[^\"\r\n]*\"(?:;[ \t]*filename\*=[^\s;\"]*)?)?[ \t]*",
    re.IGNORECASE,
)


class File(NamedTuple):
    """A part with a file name: where its bytes are in the body."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class Form(NamedTuple):
    """Text fields by name (repeated ones, `timestamp_granularities[]`, keep the last) and files."""

    fields: dict[str, object]
    files: list[File]

    @property
    def text_bytes(self) -> int:
        return sum(len(str(value).encode()) for value in self.fields.values())


def is_form(body: bytes) -> bool:
    return body.startswith(b"--")


def check_boundary(content_type: bytes, body: bytes) -> None:
    """A form must be announced as one, with the boundary its first line has. Raises Refusal."""
    announced = BOUNDARY.fullmatch(content_type)
    boundary = announced and (announced[1] or announced[2])
    if not boundary or not body.startswith(b"--" + boundary + b"\r\n"):
        raise bad("the form does not begin with the boundary its content-type names")


def parse_form(body: bytes) -> Form:
    """The parts of a form that begins with its boundary. Raises Refusal `bad_request`."""
    first_end = body.find(b"\r\n")
    boundary = body[2:first_end]
    if first_end < 3 or len(boundary) > 70:
        raise bad("the form does not begin with a boundary")
    delimiter = b"\r\n--" + boundary
    form = Form({}, [])
    at = first_end
    for _ in range(PARTS_MAX):
        head_start = at + 2
        head_end = body.find(b"\r\n\r\n", head_start)
        end = body.find(delimiter, head_end + 2)
        if head_end < 0 or end < 0:
            raise bad("the form is incomplete: a part has no end")
        _add(form, body, body[head_start:head_end], min(head_end + 4, end), end)
        at = end + len(delimiter)
        if body.startswith(b"--", at):
            return form
        if not body.startswith(b"\r\n", at):
            raise bad("the form's boundary is also part of its content")
    raise bad(f"the form has more than {PARTS_MAX} parts")


def _add(form: Form, body: bytes, head: bytes, start: int, end: int) -> None:
    dispositions = []
    for line in head.split(b"\r\n"):
        if line[:20].lower() == b"content-disposition:":
            dispositions.append(DISPOSITION.fullmatch(line))
        elif line[:26].lower() == b"content-transfer-encoding:":
            raise bad("a part of the form has a transfer encoding: send it as it is")
    if len(dispositions) != 1 or dispositions[0] is None:
        raise bad('a part of the form lacks `content-disposition: form-data; name="..."`')
    name = dispositions[0][1].decode("utf-8", "replace")
    if dispositions[0][2] is not None:
        form.files.append(File(name, start, end))
        return
    if end - start > TEXT_BYTES_MAX:
        raise bad(f"the form's field {name!r} is longer than {TEXT_BYTES_MAX} bytes")
    if name in form.fields and not name.endswith("[]"):
        raise bad(f"the form has its field {name!r} twice")
    try:
        form.fields[name] = body[start:end].decode()
    except UnicodeDecodeError:
        raise bad(f"the form's field {name!r} is not UTF-8 text") from None
