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
    """A connection, the part of its next line that has been read, and the rest of a line that has been sent in part."""

    connection: socket.socket
    lines: Lines = field(default_factory=Lines)
    unsent: bytes = b""

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
        """Send a message; it is lost where the client does not read. `flush` sends the rest of one that fits in part."""
        # A client that reads nothing has a full socket. It loses the message, but keeps its lease.
        self.flush()
        if not self.unsent:
            line = encode(message)
            sent = self._send(line)
            self.unsent = line[sent:] if sent else b""

    def flush(self) -> None:
        """Send what is left of a line, as far as the socket takes it."""
        if self.unsent:
            self.unsent = self.unsent[self._send(self.unsent) :]

    def _send(self, data: bytes) -> int:
        """How many bytes of `data` the socket took; 0 also where the client has gone."""
        try:
            return self.connection.send(data)
        except OSError:
            return 0

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
        """The clients that sent something or left within `timeout_s` seconds, with what `read` gave.

        Accepts new clients, and sends on what clients with a full socket had no room for.
        """
        for client in self._all:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
            if self._selector.get_key(client.connection).events != wanted:
                self._selector.modify(client.connection, wanted, client)
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self.accept()
                continue
            if events & selectors.EVENT_WRITE:
                key.data.flush()
            if events & selectors.EVENT_READ:
                yield key.data, key.data.read()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to every client."""
        for client in self._all:
            client.tell(message)

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
