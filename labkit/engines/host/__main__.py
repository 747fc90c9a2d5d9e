"""`python -m labkit.engines.host ADDRESS --client FD`: start a host and leave it running."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

from labkit.engines.host.loop import Host


def main() -> None:
    """Bind the address, detach, then serve. The caller waits only for the detaching."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", type=Path)
    parser.add_argument("--linger", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--client", type=int, required=True, metavar="FD", help="the starter's connection")
    options = parser.parse_args()
    starter = socket.socket(fileno=options.client)
    starter.set_inheritable(False)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    options.address.unlink(missing_ok=True)
    listener.bind(str(options.address))
    listener.listen(128)
    # The parent returns to the client at once; the orphan is adopted by init, so no client has to reap it.
    if os.fork():
        os._exit(0)
    os.setsid()
    host = Host(listener, options.address, options.linger, starter)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        host.prepare()
        host.run()
    finally:
        host.stop_all()


if __name__ == "__main__":
    main()
