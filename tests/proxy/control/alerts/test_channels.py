"""What leaves for webhooks, Slack and mail, and what each failure is called."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
import threading
import time

import httpx
import pytest
import respx
import trustme

from db.alerts import ENDED, RAISED, REPORT, Message
from proxy.config import AlertChannel
from proxy.control.alerts import mail
from proxy.control.alerts.channels import Undelivered, Unreachable, deliver
from proxy.control.alerts.mail import make_mail
from proxy.control.alerts.messages import CHAT_CHARS_MAX, Content
from tests.proxy.control.alerts.books import NOW_MS
from tests.proxy.control.alerts.smtp import MailServer
from tests.source_code import read

HOSTILE = "<b>=cmd|'/C calc'!A0 &\r\nBcc: eve@example.com"
HOOK = AlertChannel("webhook", url="https://ops.example.com/hook?token=T0KEN", secret="s3cret")
SLACK = AlertChannel("slack", url="https://hooks.example.com/services/T0KEN")
MAIL = AlertChannel(
    "email", host="127.0.0.1", sender="tk@example.com", recipients=["a@example.com", "b@x.org"]
)


def a_message(**changes):
    values = Message(
        "id-1", "budget_threshold", RAISED, "warning", "team/acme/search", "80 % is spent",
        {"percent": "80"}, NOW_MS, None,
    )  # fmt: skip
    return values._replace(**changes)


def a_report(rows):
    message = a_message(kind=REPORT, severity="info", summary="weekly", facts={"name": "weekly"})
    columns = ("team", "calls", "cost_usd")
    return Content(message, columns, rows, columns)


async def send(channel, content=None):
    await deliver(channel, content or Content(a_message()), time.time)


def the_document_verifies(request):
    """With the lines that docs/alerts.md gives to receivers."""
    code = re.search(r"```python\n(.*?)```", read("docs/alerts.md"), re.S)[1]
    names = {}
    exec(code, names)
    return names["is_from_tollkeeper"](HOOK.secret, request.headers, request.content)


# --- webhooks ------------------------------------------------------------------------------


@respx.mock
async def test_a_webhook_is_signed_and_has_the_alerts_id():
    route = respx.post(HOOK.url).respond(204)
    await send(HOOK)
    request = route.calls.last.request
    assert the_document_verifies(request)
    assert request.headers["idempotency-key"] == "id-1"
    assert json.loads(request.content) == {
        "id": "id-1", "kind": "budget_threshold", "event": "raised", "severity": "warning",
        "scope": "team/acme/search", "summary": "80 % is spent",
        "raised_at": "2026-11-18T12:30:00Z", "ended_at": None, "facts": {"percent": "80"},
    }  # fmt: skip


@respx.mock
@pytest.mark.parametrize(
    "damage",
    [
        {"content": b"{}"},
        {"x-tollkeeper-timestamp": "1"},
        {"x-tollkeeper-signature": "v1=" + "0" * 64},
    ],
)
async def test_what_was_changed_does_not_verify(damage):
    route = respx.post(HOOK.url).respond(204)
    await send(HOOK)
    sent = route.calls.last.request
    headers = {**sent.headers, **{k: v for k, v in damage.items() if k != "content"}}
    content = damage.get("content", sent.content)
    assert not the_document_verifies(
        httpx.Request("POST", HOOK.url, headers=headers, content=content)
    )


@respx.mock
async def test_the_end_of_an_alert_has_a_key_of_its_own():
    route = respx.post(HOOK.url).respond(200)
    await send(HOOK, Content(a_message(event=ENDED, ended_at_ms=NOW_MS + 1000)))
    request = route.calls.last.request
    assert request.headers["idempotency-key"] == "id-1-ended"
    assert json.loads(request.content)["ended_at"] == "2026-11-18T12:30:01Z"


@respx.mock
async def test_a_report_has_its_rows():
    route = respx.post(HOOK.url).respond(200)
    await send(HOOK, a_report([{"team": "search", "calls": 2, "cost_usd": "0.1", "more": 1}]))
    rows = json.loads(route.calls.last.request.content)["rows"]
    assert rows == [{"team": "search", "calls": 2, "cost_usd": "0.1"}]


@respx.mock
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ({"return_value": httpx.Response(500)}, Unreachable, "status 500"),
        ({"return_value": httpx.Response(429)}, Unreachable, "status 429"),
        ({"return_value": httpx.Response(404)}, Undelivered, "status 404"),
        (
            {"return_value": httpx.Response(302, headers={"location": "http://10.0.0.1/"})},
            Undelivered,
            "status 302",
        ),
        ({"side_effect": httpx.ConnectError("at T0KEN")}, Unreachable, "no connection"),
        ({"side_effect": httpx.ReadTimeout("at T0KEN")}, Unreachable, "no answer in time"),
        ({"side_effect": httpx.InvalidURL("T0KEN")}, Undelivered, "not sent"),
        ({"side_effect": TimeoutError()}, Unreachable, "no answer in 20 s"),
    ],
)
async def test_failures_have_words_without_urls_or_secrets(answer, error, text, caplog):
    caplog.set_level(logging.INFO)
    respx.post(HOOK.url).mock(**answer)
    with pytest.raises(Undelivered, match=text) as caught:
        await send(HOOK)
    assert type(caught.value) is error
    shown = str(caught.value) + caplog.text
    assert "T0KEN" not in shown
    assert "s3cret" not in shown
    assert len(respx.calls) == 1  # a redirect leads nowhere


# --- chat and log --------------------------------------------------------------------------


@respx.mock
async def test_slack_gets_escaped_text():
    route = respx.post(SLACK.url).respond(200)
    await send(SLACK, Content(a_message(summary=HOSTILE)))
    (text,) = json.loads(route.calls.last.request.content).values()
    assert text.startswith("[warning] &lt;b&gt;=cmd")
    assert "\n" not in text
    assert "x-tollkeeper-signature" not in route.calls.last.request.headers


def test_a_long_report_is_cut_between_lines():
    rows = [{"team": f"team-{n}", "calls": n, "cost_usd": "1"} for n in range(1000)]
    text = a_report(rows).chat()
    assert len(text) < CHAT_CHARS_MAX + 20
    assert text.endswith("\n...\n```")


async def test_the_log_has_one_line(caplog):
    caplog.set_level(logging.INFO)
    await send(AlertChannel("log"), Content(a_message(summary=HOSTILE)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    assert record.kind == "budget_threshold"


# --- mail ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def server_context(authority, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    client = ssl.create_default_context
    trusted = client()
    authority.configure_trust(trusted)
    monkeypatch.setattr(mail.ssl, "create_default_context", lambda: trusted)
    return context


def at(server, **changes):
    fields = {name: getattr(MAIL, name) for name in MAIL.__struct_fields__}
    return AlertChannel(**(fields | {"port": server.port} | changes))


async def test_a_mail_is_encrypted_before_anything_is_said(server_context):
    async with MailServer(server_context) as server:
        await send(at(server, user="tk", password="hunter2"))
    (mail_,) = server.mails
    assert mail_["subject"] == "Tollkeeper: [warning] 80 % is spent"
    assert mail_["to"] == "a@example.com, b@x.org"
    assert mail_["message-id"] == "<id-1@tollkeeper.example.com>"
    assert "percent: 80" in mail_.get_content()
    clear = [command for command in server.commands if not command.startswith("TLS ")]
    assert [command.split()[0].upper() for command in clear] == ["EHLO", "STARTTLS"]


async def test_a_report_has_a_table_and_a_file_that_no_spreadsheet_runs():
    rows = [
        {"team": "=1+1", "calls": 3, "cost_usd": "12.5"},
        {"team": "ads\nx", "calls": 1, "cost_usd": "-0.5"},
    ]
    async with MailServer() as server:
        await send(at(server, security="none"), a_report(rows))
    text, file = server.mails[0].iter_parts()
    assert [line for line in text.get_content().splitlines() if "12.5" in line] == [
        "=1+1       3      12.5"
    ]
    assert file.get_filename() == "weekly.csv"
    lines = file.get_content().splitlines()
    assert lines[:2] == ["team,calls,cost_usd", "'=1+1,3,12.5"]


def test_no_name_can_add_a_header():
    made = make_mail(MAIL, Content(a_message(summary=HOSTILE)))
    assert "Bcc" not in made
    assert b"\nBcc:" not in made.as_bytes().split(b"\n\n")[0]


@pytest.mark.parametrize(
    ("refuse", "error", "text"),
    [
        ({"AUTH": "535 no hunter2"}, Undelivered, "login was refused .SMTP 535"),
        ({"RCPT": "550 nobody"}, Undelivered, "every recipient"),
        ({"MAIL": "451 later"}, Unreachable, "SMTP 451"),
        ({"DATA": "554 spam"}, Undelivered, "SMTP 554"),
        ({"EHLO": "421 busy", "HELO": "421 busy"}, Unreachable, "SMTP 421"),
    ],
)
async def test_refusals_of_a_mail_server(refuse, error, text, server_context):
    async with MailServer(server_context, refuse) as server:
        with pytest.raises(Undelivered, match=text) as caught:
            await send(at(server, user="tk", password="hunter2"))
    assert type(caught.value) is error
    assert "hunter2" not in str(caught.value)
    assert server.mails == []


async def test_nothing_is_sent_to_a_server_that_does_not_encrypt():
    async with MailServer() as server:
        with pytest.raises(Undelivered, match="TLS"):
            await send(at(server))
    assert server.mails == []


async def test_nobody_there():
    async with MailServer() as server:
        gone = at(server)
    with pytest.raises(Unreachable, match="no connection"):
        await send(gone)


@pytest.fixture
def silent():
    """A channel whose server accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield AlertChannel(
            "email", host="127.0.0.1", port=listener.getsockname()[1], security="none",
            sender="tk@example.com", recipients=["a@example.com"],
        )  # fmt: skip
    for thread in threading.enumerate():
        if thread.name == mail.THREAD_NAME:
            thread.join(mail.TIMEOUT_S)


def test_a_server_that_hangs_keeps_nobody_waiting(silent):
    """Neither others who need a thread of the loop's pool, nor the end of the process."""

    async def hanging():
        sent = [asyncio.create_task(send(silent)) for _ in range(40)]  # more than a pool has
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
        assert not any(task.done() for task in sent)

    asyncio.run(hanging())  # cancels them, then waits for the pool
    assert sum(thread.name == mail.THREAD_NAME for thread in threading.enumerate()) == 40


async def test_so_many_mails_may_hang(silent, monkeypatch):
    monkeypatch.setattr(mail, "THREADS_MAX", 1)
    hung = asyncio.create_task(send(silent))
    await asyncio.sleep(0)
    with pytest.raises(Unreachable, match="too many"):
        await send(silent)
    hung.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hung
