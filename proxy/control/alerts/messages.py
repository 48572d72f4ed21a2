"""What is said to a channel: one content, as JSON, as a line of text, as a mail with a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from db.alerts import ENDED, REPORT, Message
from proxy.control.alerts.figures import iso_ms
from proxy.control.csv_cells import csv_text
from proxy.control.plain_rows import Row, printable, text_table

TEXT_ROWS_MAX = 200  # of a report in the text of a mail; the attachment has more
CHAT_CHARS_MAX = 3_000
SUBJECT_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Content:
    """A message, and the rows of the report that it is, if it is one."""

    message: Message
    columns: Sequence[str] = ()
    rows: Sequence[Row] = ()
    shown: Sequence[str] = ()  # columns in tables of text

    @property
    def key(self) -> str:
        """The same for every attempt: the alert's id, and of its end another."""
        message = self.message
        return message.id if message.event != ENDED else f"{message.id}-ended"

    @property
    def headline(self) -> str:
        message = self.message
        told = f"ended: {message.summary}" if message.event == ENDED else message.summary
        mark = "" if message.kind == REPORT else f"[{message.severity}] "
        return printable(mark + told)

    @property
    def subject(self) -> str:
        return f"Tollkeeper: {self.headline}"[:SUBJECT_CHARS_MAX]

    def json(self) -> bytes:
        message = self.message
        body: dict[str, Any] = {
            "id": message.id,
            "kind": message.kind,
            "event": message.event,
            "severity": message.severity,
            "scope": message.scope,
            "summary": message.summary,
            "raised_at": iso_ms(message.raised_at_ms),
            "ended_at": None if message.ended_at_ms is None else iso_ms(message.ended_at_ms),
            "facts": message.facts,
        }
        if message.kind == REPORT:
            body["rows"] = [{name: row.get(name) for name in self.columns} for row in self.rows]
        return msgspec.json.encode(body)

    def text(self) -> str:
        """Of a mail."""
        message = self.message
        lines = [self.headline, ""]
        if message.kind == REPORT:
            lines.append(text_table(self.rows[:TEXT_ROWS_MAX], self.shown))
            if len(self.rows) > TEXT_ROWS_MAX:
                lines.append(f"and {len(self.rows) - TEXT_ROWS_MAX} rows more: see the attachment")
        else:
            lines += [f"{name}: {printable(str(value))}" for name, value in message.facts.items()]
            lines += ["", f"{message.kind}, raised at {iso_ms(message.raised_at_ms)}"]
        lines.append(f"id: {message.id}")
        return "\n".join(lines) + "\n"

    def chat(self) -> str:
        """For Slack, whose three special characters are escaped."""
        text = self.headline
        if self.columns:
            text += f"\n```\n{text_table(self.rows[:TEXT_ROWS_MAX], self.shown)}"
        if len(text) > CHAT_CHARS_MAX:
            text = text[:CHAT_CHARS_MAX].rpartition("\n")[0] + "\n..."
        if self.columns:
            text = text.rstrip("\n") + "\n```"
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    def csv(self) -> str:
        return csv_text(self.rows, self.columns)
