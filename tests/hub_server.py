"""A Hub in one process: enough of its HTTP interface to create a repository, commit files and read them back."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


class HubServer:
    """Listens on a free port of the loopback interface while it is used as a context manager.

    Attributes:
        url: the endpoint, without a slash at the end.
        repositories: {repository id: {path: content}}, the last commit of each.
        requests: "METHOD path" of every request, in order.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def revision(self, repository: str) -> str:
        """A commit hash: the same files have the same one."""
        digest = hashlib.sha1(repository.encode())
        for path, content in sorted(self.repositories[repository].items()):
            digest.update(path.encode() + content)
        return digest.hexdigest()

    def commit(self, repository: str, lines: bytes) -> None:
        """Apply a commit in the Hub's form: one JSON object a line, file contents in base64."""
        files = self.repositories[repository]
        for line in lines.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                files.pop(value["path"], None)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._path()
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            request = json.loads(body)
            repository = f"{request.get('organization') or 'me'}/{request['name']}"
            known = repository in self.hub.repositories
            self.hub.repositories.setdefault(repository, {})
            return self._json({"url": f"{self.hub.url}/{repository}"}, status=409 if known else 200)
        if (match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/[^/]+", path)) is None:
            return self._missing()
        repository, action = match.groups()
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        if action == "preupload":
            # "regular" makes the client send every file inside the commit, whatever its size: no LFS, no Xet.
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        self.hub.commit(repository, body)
        revision = self.hub.revision(repository)
        self._json({"commitUrl": f"{self.hub.url}/{repository}/commit/{revision}", "commitOid": revision})

    def do_GET(self) -> None:
        path = self._path()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            return self._info(match[1])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            return self._tree(match[1])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(*match.groups())
        self._missing()

    do_HEAD = do_GET

    def _info(self, repository: str) -> None:
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        siblings = [{"rfilename": path} for path in self.hub.repositories[repository]]
        self._json({"id": repository, "sha": self.hub.revision(repository), "private": False, "siblings": siblings})

    def _tree(self, repository: str) -> None:
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._missing("RepoNotFound")
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in files.items()
        ]
        self._json(entries)

    def _file(self, repository: str, path: str) -> None:
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        commit = {"X-Repo-Commit": self.hub.revision(repository)}
        content = self.hub.repositories[repository].get(path)
        if content is None:
            return self._missing("EntryNotFound", commit)
        self._send(200, content, {**commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str = "EntryNotFound", headers: dict[str, str] | None = None) -> None:
        self._send(404, b"", {"X-Error-Code": code, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silence: tests print enough."""
