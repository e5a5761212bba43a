"""A Hugging Face Hub for tests: repositories in memory, served on localhost by the routes that huggingface_hub calls."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class Hub(ThreadingHTTPServer):
    """``files`` are the content of each repository by ``OWNER/NAME`` and path; ``tokens`` those that requests came with.

    ``cards`` are the front matters of their pages.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()
        self.cards: dict[str, dict[str, str]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.files[repo].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, content: object = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **{name.replace("_", "-"): v for name, v in headers.items()}}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlparse(self.path).path
        self.server.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if path == "/api/repos/create":
            content = json.loads(body)
            repo = f"{content['organization']}/{content['name']}" if content.get("organization") else content["name"]
            self.server.files.setdefault(repo, {})
            self._reply({"url": f"{self.server.address}/{repo}"})
        elif path == "/api/validate-yaml":
            self._reply({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._reply({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = self.server.commit_of(repo)
            self._reply({"commitUrl": f"{self.server.address}/{repo}/commit/{commit}", "commitOid": commit})
        else:
            self._reply({"error": f"no route {path}"}, 404)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if path.startswith("/api/models/"):
            repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            if repo not in self.server.files:
                self._reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                return
            contents = sorted(self.server.files[repo].items())
            if "/tree/" in path:
                self._reply([_entry(name, content) for name, content in contents])
                return
            files = [{"rfilename": name} for name, _ in contents]
            self._reply(
                {
                    "id": repo,
                    "sha": self.server.commit_of(repo),
                    "siblings": files,
                    "tags": [],
                    "cardData": self.server.cards.get(repo),
                }
            )
            return
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        content = self.server.files.get(repo, {}).get(rest.partition("/")[2])
        if content is None:
            self._reply({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        tag = hashlib.sha1(content).hexdigest()
        self._reply(content, ETag=f'"{tag}"', X_Repo_Commit=self.server.commit_of(repo))


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the end."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
