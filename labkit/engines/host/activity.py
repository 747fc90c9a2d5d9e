"""Whether an engine has work, by its own counters, which show the requests of every client."""

from __future__ import annotations

import http.client
import re

_COUNTERS = re.compile(
    rb"^vllm:(?:num_requests_running|num_requests_waiting|generation_tokens_total|prompt_tokens_total)\{.*", re.M
)
_RUNNING = re.compile(rb"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (?!0(?:\.0)?$)", re.M)


class Activity:
    """Keeps, as `last`, when an engine was last seen at work, in seconds of the clock from which the caller takes `now`."""

    def __init__(self, now: float) -> None:
        self.last = now
        self._counters = b""

    def look(self, port: int, api_key: str, now: float) -> None:
        """Read the engine's counters. An engine that does not answer counts as busy; `Host` notices if it has ended."""
        body = _metrics(port, api_key)
        counters = self._counters if body is None else b"\n".join(_COUNTERS.findall(body))
        if body is None or counters != self._counters or _RUNNING.search(body):
            self._counters, self.last = counters, now


def _metrics(port: int, api_key: str) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {api_key}"})
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
