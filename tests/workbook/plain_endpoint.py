"""A plain OpenAI-compatible endpoint: one unknown model, no /metrics, no log-probabilities, nothing of vLLM's.

`python -m tests.workbook.plain_endpoint [port]` serves it on loopback until interrupted, and prints its address.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "toy-1"
WORDS = ("I", " cannot", " say", " more", " than", " this", ".")


class Plain(BaseHTTPRequestHandler):
    """Answers every question with the same words, cut at max_tokens."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._json(404, {"error": {"message": f"no {self.path} here", "type": "invalid_request_error"}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or asked.get("model") != MODEL:
            self._json(404, {"error": {"message": f"no {asked.get('model')} here", "type": "invalid_request_error"}})
            return
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or len(WORDS)
        words, finish = WORDS[:limit], "length" if limit < len(WORDS) else "stop"
        prompt = sum(len(str(message["content"]).split()) for message in asked["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        choices: list[dict[str, Any]] = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in words]
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
        events = [{**head, "choices": [choice]} for choice in choices]
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            whole = {"index": 0, "message": message, "finish_reason": finish}
            self._json(200, {**head, "object": "chat.completion", "choices": [whole], "usage": usage})
            return
        if asked.get("stream_options", {}).get("include_usage"):
            events.append({**head, "choices": [], "usage": usage})
        self._send(200, "text/event-stream", "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _json(self, status: int, content: Any) -> None:
        self._send(status, "application/json", json.dumps(content))

    def _send(self, status: int, kind: str, content: str) -> None:
        body = content.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Patient(ThreadingHTTPServer):
    """A server at whose door as many may wait as a chapter sends at once."""

    request_queue_size = 128


@contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """The base URL of such an endpoint, for as long as the body runs."""
    server = Patient(("127.0.0.1", port), Plain)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serving(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as address:
        print(address, flush=True)
        threading.Event().wait()
