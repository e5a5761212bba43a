"""An endpoint on this machine that speaks OpenAI's chat completions, and replies as a test tells it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def chat(text: str, code: int = 200) -> tuple[int, bytes]:
    """A reply as OpenAI's."""
    return code, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@contextmanager
def chat_server() -> Iterator[Any]:
    """A server; ``reply(body)`` decides what it says, ``requests`` holds what it was asked, ``headers`` what it sends beside."""
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, dict(self.headers), body))
            code, content = server.reply(body)  # type: ignore[attr-defined]
            self.send_response(code)
            for name, value in server.headers.items():  # type: ignore[attr-defined]
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.headers = requests, {}  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{server.server_port}/v1"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
