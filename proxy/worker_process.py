"""`python -m proxy.worker_process LISTENER CONTROL`: a worker, started by control, which passes two
open sockets: the listener that all workers share, and a connection to itself."""

import signal
import socket
import sys

from proxy.heap import loading, share_one_arena


def main(listener_fd: int, control_fd: int) -> None:
    """Raises SystemExit where it cannot start, as told on the log."""
    loading()
    share_one_arena()
    import uvloop  # noqa: PLC0415 - with the collector off

    from proxy.worker import run  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; control decides
    listener = socket.socket(fileno=listener_fd)
    uvloop.run(run(socket.socket(fileno=control_fd), listener))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
