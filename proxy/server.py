"""Our HTTP server: uvicorn on given sockets, with limits and, for the call path, without ASGI.

uvicorn does connections, parsing and shutdown (proxy/server_connection.py has what is ours of
them). The worker's requests go to the call path directly, those of the admin port through ASGI.
"""

import asyncio
import socket
from typing import Any

import uvicorn

from proxy.server_connection import Connection
from proxy.server_direct import DirectConnection, Handler

_SWEEP_S = 5.0


class Server:
    """uvicorn on given sockets, without its signal handling: the worker decides when to stop.

    Serves `direct`, where given, instead of the ASGI application.
    """

    def __init__(
        self,
        app: Any,
        *,
        keep_alive_s: float,
        header_bytes_max: int,
        direct: Handler | None = None,
    ) -> None:
        limits: dict[str, Any] = {"header_bytes_max": header_bytes_max}
        if direct is None:
            protocol: type[Connection] = type("Connection", (Connection,), limits)
        else:
            limits["handler"] = staticmethod(direct)
            protocol = type("Connection", (DirectConnection,), limits)
        self._config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # the provider's own date goes through
            timeout_keep_alive=int(keep_alive_s),
        )
        self._server = uvicorn.Server(self._config)
        self._server.servers = []  # uvicorn makes the list when it starts
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, sockets: list[socket.socket]) -> None:
        """Begin to accept."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(sockets)
        self._sweep()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._server.server_state.connections):
            connection.sweep(now)  # type: ignore[union-attr]
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def close_listeners(self) -> None:
        """Stop accepting at once; open connections go on."""
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()

    async def stop(self) -> None:
        """Close what is left: idle connections, and those whose call has ended."""
        if self._sweeper is None:
            return  # never started
        self._sweeper.cancel()
        self.close_listeners()
        for connection in list(self._server.server_state.connections):
            connection.transport.close()
        for server in self._server.servers:
            server.close()
