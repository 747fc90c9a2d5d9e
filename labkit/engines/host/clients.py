"""Who is connected to the host."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labkit.engines.host.protocol import Lines, encode


@dataclass(eq=False)
class Client:
    """A connection, and what has been read of its next line."""

    connection: socket.socket
    lines: Lines = field(default_factory=Lines)

    @property
    def gone(self) -> bool:
        """Whether its end is closed, whatever it has said before that is still to be read."""
        poll = select.poll()
        poll.register(self.connection, 0)  # a hang-up is told without being asked for
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def read(self) -> bytes | None:
        """What has arrived; None once its end is closed and all has been read."""
        try:
            return self.connection.recv(65536) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message."""
        # A client that reads nothing has a full socket; its lease is what matters, and that it keeps.
        with contextlib.suppress(OSError):
            self.connection.send(encode(message))

    def fail(self, kind: str, message: str) -> None:
        """Say that there will be no engine: for its "argument", or because it does not "start"."""
        self.tell({"event": "failed", "kind": kind, "message": message, "log": []})


class Clients:
    """All clients, and the listener through which they come."""

    def __init__(self, listener: socket.socket, first: socket.socket) -> None:
        self._listener = listener
        self._all: list[Client] = []
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._welcome(first)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def all_gone(self) -> bool:
        """Whether nobody is left on the other end of any connection."""
        return all(client.gone for client in self._all)

    @property
    def descriptors(self) -> list[int]:
        """What a fork inherits and must close: a lease held open by an engine would outlive its client."""
        epoll = getattr(self._selector, "fileno", None)
        connections = [client.connection.fileno() for client in self._all]
        return [self._listener.fileno(), *connections, *([epoll()] if epoll else [])]

    def heard(self, timeout_s: float) -> Iterator[tuple[Client, bytes | None]]:
        """Those who said something within `timeout_s`, with what `read` got from them; whoever is new is let in."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self.accept()
            else:
                yield key.data, key.data.read()

    def accept(self) -> None:
        """Let in whoever waits."""
        with contextlib.suppress(OSError):  # BlockingIOError: nobody waits any more; others: the client has gone again
            while True:
                self._welcome(self._listener.accept()[0])

    def drop(self, client: Client) -> None:
        """Close the connection."""
        self._selector.unregister(client.connection)
        client.connection.close()
        self._all.remove(client)

    def close(self) -> None:
        """Let nobody in any more."""
        self._listener.close()

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        client = Client(connection)
        self._all.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)
