"""Whether an engine has work, by its own counters: whoever sends the requests, they are seen."""

from __future__ import annotations

import http.client
import re

_COUNTERS = re.compile(
    rb"^vllm:(?:num_requests_running|num_requests_waiting|generation_tokens_total|prompt_tokens_total)\{.*", re.M
)
_RUNNING = re.compile(rb"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (?!0(?:\.0)?$)", re.M)


class Activity:
    """The last moment at which an engine was seen at work, on the clock of whoever asks."""

    def __init__(self, now: float) -> None:
        self.last = now
        self._counters = b""

    def look(self, port: int, api_key: str, now: float) -> None:
        """Ask the engine. One that does not answer is taken to be busy; its end is noticed elsewhere."""
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
