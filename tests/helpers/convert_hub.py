"""A hub on the loopback interface: enough of the API for huggingface_hub to find and fetch a small checkpoint.

Served: model info with sizes and hashes, HEAD and GET of resolve/<commit>/<file> with ETag, X-Repo-Commit,
X-Linked-Etag and X-Linked-Size, which redirect to a second server for the content, with ranges, as the real hub does.
`faults` says what goes wrong, per file.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# file name -> (handler, range header's first byte or None, whole content) -> whether it has answered
Fault = Callable[["Handler", int | None, bytes], bool]


@dataclass
class Repo:
    files: dict[str, bytes]
    large: set[str]  # stored apart from git, known by SHA-256


@dataclass
class Hub:
    repos: dict[str, Repo]
    faults: dict[str, Fault] = field(default_factory=dict)
    announced: dict[str, dict] = field(default_factory=dict)  # file name -> changes of what the API says of it
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # (method, path, Range)
    tokens: set[tuple[str, str]] = field(default_factory=set)  # (first part of the path, Authorization)
    url: str = ""
    cdn: str = ""

    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [path.rpartition("/")[2] for method, path, _ in self.requests if method == "GET" and "/cdn/" in path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
        self.hub.tokens.add((self.path.split("/")[1], self.headers.get("Authorization", "")))
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", path):
            self.info(match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.content(self.hub.repos[match[1]].files[match[2]], match[2])
        else:
            self.answer(404)

    def info(self, name: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository Not Found")
            return
        siblings = []
        for file, data in repo.files.items():
            entry = {"rfilename": file, "size": len(data), "blobId": git_id(data)}
            if file in repo.large:
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(entry | self.hub.announced.get(file, {}))
        body = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json", X_Repo_Commit=COMMIT)

    def resolve(self, name: str, revision: str, file: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or file not in repo.files or revision not in (COMMIT, "main"):
            self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry Not Found")
            return
        data = repo.files[file]
        etag = hashlib.sha256(data).hexdigest() if file in repo.large else git_id(data)
        self.answer(
            302,
            Location=f"{self.hub.cdn}/cdn/{name}/{file}",
            ETag=f'"{etag}"',
            X_Repo_Commit=COMMIT,
            X_Linked_Etag=f'"{etag}"',
            X_Linked_Size=str(len(data)),
        )

    def content(self, data: bytes, file: str) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else None
        fault = self.hub.faults.get(file)
        if self.command == "GET" and fault is not None and fault(self, start, data):
            return
        if start is None:
            self.answer(200, data)
        elif start >= len(data):
            self.answer(416, Content_Range=f"bytes */{len(data)}")
        else:
            self.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")

    def cut(self, data: bytes, start: int | None, count: int) -> bool:
        """Sends `count` bytes of an answer that promises all, and drops the connection."""
        rest = data[start or 0 :]
        headers = {} if start is None else {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self.answer(200 if start is None else 206, rest[:count], len(rest), **headers)
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()
        return True


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Serving:
    """`with Serving(repos) as hub:` a hub at hub.url."""

    def __init__(self, repos: dict[str, Repo]) -> None:
        self.hub = Hub(repos)
        handler = type("BoundHandler", (Handler,), {"hub": self.hub})
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.hub.url, self.hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        self.threads = []
        for server in self.servers:
            server.daemon_threads = True
            server.handle_error = lambda *_: None  # connections that a fault dropped
            self.threads.append(threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True))

    def __enter__(self) -> Hub:
        for thread in self.threads:
            thread.start()
        return self.hub

    def __exit__(self, *_: object) -> None:
        for server, thread in zip(self.servers, self.threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
