"""A mail server for tests: what RFC 5321 and STARTTLS need, and a script of refusals."""

import asyncio
import ssl
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class MailServer:
    context: ssl.SSLContext | None = None  # offers STARTTLS with it
    refuse: dict[str, str] = field(default_factory=dict)  # first word -> the answer
    mails: list[EmailMessage] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)  # with "TLS " in front once encrypted
    port: int = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        encrypted = ""
        writer.write(b"220 ready\r\n")
        while line := (await reader.readline()).decode().strip():
            word = line.split()[0].upper()
            self.commands.append(encrypted + line)
            if word in self.refuse:
                writer.write(self.refuse[word].encode() + b"\r\n")
            elif word == "EHLO":
                offer = "STARTTLS" if self.context and not encrypted else "AUTH PLAIN"
                writer.write(f"250-here\r\n250 {offer}\r\n".encode())
            elif word == "STARTTLS":
                writer.write(b"220 go\r\n")
                await writer.drain()
                await writer.start_tls(self.context)
                encrypted = "TLS "
            elif word == "DATA":
                writer.write(b"354 go\r\n")
                data = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(message_from_bytes(data[:-5], policy=policy.default))
                writer.write(b"250 taken\r\n")
            elif word == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"235 in\r\n" if word == "AUTH" else b"250 fine\r\n")
        writer.close()
