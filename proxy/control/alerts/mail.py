"""Mail over SMTP, in a thread of its own: the standard library's client blocks, with a limit on
each step.

Not in a thread of the loop's pool: a server that hangs would take those from everybody else, such
as the renewal of a provider's access token, and the process could not end before it.
"""

import asyncio
import contextlib
import smtplib
import ssl
import threading
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate

from proxy.config import AlertChannel
from proxy.control.alerts.channels import TIMEOUT_S, Undelivered, Unreachable
from proxy.control.alerts.messages import Content

PORTS = {"starttls": 587, "tls": 465, "none": 25}
THREADS_MAX = 64  # with those that nobody waits for any more
THREAD_NAME = "alert-mail"


async def send_mail(channel: AlertChannel, content: Content) -> None:
    """Raises Undelivered, with what the server said but never a password."""
    mail = make_mail(channel, content)
    try:
        await _aside(lambda: _send(channel, mail))
    except smtplib.SMTPAuthenticationError as exc:
        raise Undelivered(f"the login was refused (SMTP {exc.smtp_code})") from None
    except smtplib.SMTPRecipientsRefused:
        raise Undelivered("every recipient was refused") from None
    except smtplib.SMTPResponseException as exc:
        kind = Unreachable if exc.smtp_code < 500 else Undelivered
        raise kind(f"refused (SMTP {exc.smtp_code})") from None
    except smtplib.SMTPNotSupportedError:
        raise Undelivered("the server does not offer what is configured: TLS or login") from None
    except ssl.SSLError as exc:
        raise Undelivered(f"no TLS: {exc.reason or 'failed'}") from None
    except (smtplib.SMTPException, OSError) as exc:
        raise Unreachable(f"no connection ({type(exc).__name__})") from None


async def _aside(work: Callable[[], None]) -> None:
    """Raises what `work` raises. If this is cancelled, the thread goes on to its next limit, or to
    the end of the process. Raises Unreachable if too many do so."""
    if sum(thread.name == THREAD_NAME for thread in threading.enumerate()) >= THREADS_MAX:
        raise Unreachable("too many mails before it hang")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(exc: Exception | None) -> None:
        if not done.done():
            done.set_result(None) if exc is None else done.set_exception(exc)

    def run() -> None:
        failure = None
        try:
            work()
        except Exception as exc:
            failure = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    await done


def make_mail(channel: AlertChannel, content: Content) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = content.subject
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.recipients)
    mail["Date"] = formatdate(content.message.raised_at_ms / 1000)
    # The same for every attempt, so that a mail server can tell a second one.
    mail["Message-ID"] = f"<{content.key}@tollkeeper.{channel.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(content.text())
    if content.columns:
        name = f"{content.message.facts.get('name', 'report')}.csv"
        mail.add_attachment(content.csv(), subtype="csv", filename=name)
    return mail


def _send(channel: AlertChannel, mail: EmailMessage) -> None:
    port = channel.port or PORTS[channel.security]
    if channel.security == "tls":
        context = ssl.create_default_context()
        with smtplib.SMTP_SSL(channel.host, port, timeout=TIMEOUT_S, context=context) as server:
            _submit(channel, server, mail)
        return
    with smtplib.SMTP(channel.host, port, timeout=TIMEOUT_S) as server:
        if channel.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        _submit(channel, server, mail)


def _submit(channel: AlertChannel, server: smtplib.SMTP, mail: EmailMessage) -> None:
    if channel.user:
        server.login(channel.user, channel.password)
    refused = server.send_message(mail)
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)
