"""The clients that are connected to the host."""

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
    """A connection, and the part of its next line that has been read."""

    connection: socket.socket
    lines: Lines = field(default_factory=Lines)

    @property
    def gone(self) -> bool:
        """Whether the client has closed its end, even if something that it sent before is still unread."""
        poll = select.poll()
        poll.register(self.connection, 0)  # poll reports a hang-up without being asked to
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def read(self) -> bytes | None:
        """The bytes that have arrived; None once the client has closed its end and all has been read."""
        try:
            return self.connection.recv(65536) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message; it is lost where the client does not read."""
        # A client that reads nothing has a full socket. It loses the message, but keeps its lease.
        with contextlib.suppress(OSError):
            self.connection.send(encode(message))

    def fail(self, kind: str, message: str) -> None:
        """Tell the client that it gets no engine; `kind` is "argument" (wrong arguments) or "start" (it did not start)."""
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
        """Whether every client has closed its end."""
        return all(client.gone for client in self._all)

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that a fork inherits and must close: a lease held open by an engine would outlive its client."""
        epoll = getattr(self._selector, "fileno", None)
        connections = [client.connection.fileno() for client in self._all]
        return [self._listener.fileno(), *connections, *([epoll()] if epoll else [])]

    def heard(self, timeout_s: float) -> Iterator[tuple[Client, bytes | None]]:
        """The clients that sent something or left within `timeout_s` seconds, with what `read` gave. Accepts new ones."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self.accept()
            else:
                yield key.data, key.data.read()

    def accept(self) -> None:
        """Accept all clients that wait to connect."""
        with contextlib.suppress(OSError):  # BlockingIOError: no client waits; others: the client has gone
            while True:
                self._welcome(self._listener.accept()[0])

    def drop(self, client: Client) -> None:
        """Close the connection to `client` and forget it."""
        self._selector.unregister(client.connection)
        client.connection.close()
        self._all.remove(client)

    def close(self) -> None:
        """Close the listener, so that no new client can connect."""
        self._listener.close()

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        client = Client(connection)
        self._all.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)
