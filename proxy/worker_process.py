"""`python -m proxy.worker_process`: a worker, started by control, which passes both sockets."""

import argparse
import signal
import socket

from proxy.heap import loading


def main() -> None:
    """Raises SystemExit where it cannot start, as told on the log."""
    loading()
    import uvloop  # noqa: PLC0415 - with the collector off

    from proxy.worker import run  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen-fd", type=int, required=True, help="shared by all workers")
    parser.add_argument("--control-fd", type=int, required=True, help="a connection to control")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; control decides
    listener = socket.socket(fileno=options.listen_fd)
    uvloop.run(run(socket.socket(fileno=options.control_fd), listener))


if __name__ == "__main__":
    main()
