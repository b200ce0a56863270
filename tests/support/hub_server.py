"""A Hub in one process: enough of its HTTP interface to create a repository, commit files and read them back."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml


class HubServer:
    """Listens on a free port of the loopback interface while it is used as a context manager.

    Attributes:
        url: the endpoint, without a slash at the end.
        repositories: {repository id: {path: content}}, the last commit of each.
        branches: {(repository id, branch): {path: content}} of branches beside the main one.
        requests: "METHOD path" of every request, in order.
        token: what writers must send; None takes everybody.
        read_only: repositories that refuse to be written.
        failures: (pattern of "METHOD path", status) of answers to come, each given once; status 0 hangs up.
        lfs: whether weights travel apart from the commit, as on the real Hub.
        blobs: contents that have arrived that way, by SHA-256.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.branches: dict[tuple[str, str], dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.token: str | None = None
        self.read_only: set[str] = set()
        self.failures: list[tuple[str, int]] = []
        self.lfs = False
        self.blobs: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        """Files of a branch, or of the one whose last commit has this hash; any other hash is of the main one."""
        for (owner, branch), files in self.branches.items():
            if owner == repository and revision in (branch, self._digest(repository, files)):
                return files
        return self.repositories[repository]

    def revision(self, repository: str, revision: str = "main") -> str:
        """A commit hash: the same files have the same one."""
        return self._digest(repository, self.files(repository, revision))

    @staticmethod
    def _digest(repository: str, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repository.encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
        return digest.hexdigest()

    def commit(self, repository: str, lines: bytes, revision: str = "main") -> None:
        """Apply a commit in the Hub's form: one JSON object a line, file contents in base64."""
        files = self.files(repository, revision)
        for line in lines.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                files.pop(value["path"], None)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body, path = self._body(), self._path()
        if body is None or self._refused(path):
            return None
        if path == "/api/validate-yaml":
            return self._json(_validated(json.loads(body)["content"]))
        if path == "/api/repos/create":
            request = json.loads(body)
            repository = f"{request.get('organization') or 'me'}/{request['name']}"
            known = repository in self.hub.repositories
            self.hub.repositories.setdefault(repository, {})
            return self._json({"url": f"{self.hub.url}/{repository}"}, status=409 if known else 200)
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body)["objects"])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", path):
            known = match.groups() in self.hub.branches or match[2] == "main"
            self.hub.branches.setdefault((match[1], match[2]), dict(self.hub.repositories[match[1]]))
            return self._json({}, status=409 if known else 200)
        if (match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/]+)", path)) is None:
            return self._missing()
        repository, action, revision = match.groups()
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        if action == "preupload":
            return self._preupload(repository, json.loads(body)["files"])
        header = json.loads(body.splitlines()[0])["value"]
        if header.get("parentCommit") not in (None, self.hub.revision(repository, revision)):
            return self._json({"error": "A commit has happened since."}, status=412)
        if "create_pr=1" in urlsplit(self.path).query:
            url = f"{self.hub.url}/{repository}/discussions/1"
            commit = f"{self.hub.url}/{repository}/commit/{'0' * 40}"
            return self._json({"commitUrl": commit, "commitOid": "0" * 40, "pullRequestUrl": url})
        self.hub.commit(repository, body, revision)
        commit = self.hub.revision(repository, revision)
        self._json({"commitUrl": f"{self.hub.url}/{repository}/commit/{commit}", "commitOid": commit})

    def _body(self) -> bytes | None:
        """What came with a request; None where the client was gone before all of it had come."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return None
        return body

    def do_PUT(self) -> None:
        content, path = self._body(), self._path()
        if content is not None and not self._refused(path):
            self.hub.blobs[path.rsplit("/", 1)[-1]] = content
            self._send(200, b"", {})

    def _preupload(self, repository: str, files: list[dict[str, Any]]) -> None:
        """ "regular" makes the client send a file inside the commit, whatever its size."""
        apart = (".safetensors", ".onnx", ".data") if self.hub.lfs else ()
        entries = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(apart) else "regular",
                "shouldIgnore": False,
                "oid": self._oid(self.hub.repositories[repository].get(file["path"])),
            }
            for file in files
        ]
        self._json({"files": entries})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        """Where to put each blob; nowhere where it has arrived already."""
        answers = []
        for entry in objects:
            upload = {"upload": {"href": f"{self.hub.url}/blobs/{entry['oid']}"}}
            answers.append({**entry, **({} if entry["oid"] in self.hub.blobs else {"actions": upload})})
        self._json({"transfer": "basic", "objects": answers})

    @staticmethod
    def _oid(content: bytes | None) -> str | None:
        """Git's name of a file."""
        return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _failed(self, path: str) -> bool:
        """Whether this request is answered with a failure that a test has asked for."""
        for place, (pattern, status) in enumerate(self.hub.failures):
            if re.search(pattern, f"{self.command} {path}"):
                del self.hub.failures[place]
                if status == 0:
                    self.close_connection = True
                    self.connection.close()
                else:
                    self._json({"error": "for a test"}, status=status)
                return True
        return False

    def _refused(self, path: str) -> bool:
        """Whether this request to write fails, or lacks its rights."""
        if self._failed(path):
            return True
        if self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._json({"error": "Invalid username or password."}, status=401)
            return True
        if any(f"/{name}/" in f"{path}/" for name in self.hub.read_only):
            self._json({"error": "You don't have the rights to write here."}, status=403)
            return True
        return False

    def do_GET(self) -> None:
        path = self._path()
        if self._failed(path):
            return None
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._info(match[1], match[2] or "main")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._tree(match[1], match[2])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*match.groups())
        self._missing()

    do_HEAD = do_GET

    def _info(self, repository: str, revision: str) -> None:
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        siblings = [{"rfilename": path} for path in self.hub.files(repository, revision)]
        commit = self.hub.revision(repository, revision)
        self._json({"id": repository, "sha": commit, "private": False, "siblings": siblings})

    def _tree(self, repository: str, revision: str) -> None:
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        files = self.hub.files(repository, revision)
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in files.items()
        ]
        self._json(entries)

    def _file(self, repository: str, revision: str, path: str) -> None:
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        commit = {"X-Repo-Commit": self.hub.revision(repository, revision)}
        content = self.hub.files(repository, revision).get(path)
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


def _validated(card: str) -> dict[str, list[dict[str, str]]]:
    """What the Hub says of a card's metadata: of the names of models and of the types of values."""
    data = yaml.safe_load(card.split("---")[1]) or {}
    errors = []
    for name in ("license", "pipeline_tag", "library_name", "base_model", "base_model_relation", "license_name"):
        if name in data and not isinstance(data[name], str):
            errors.append(f"{name} must be a string")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data.get("base_model", "a/b")):
        errors.append("base_model must be a repository")
    if data.get("base_model_relation", "finetune") not in ("adapter", "merge", "quantized", "finetune"):
        errors.append("base_model_relation is unknown")
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        errors.append("tags must be strings")
    return {"errors": [{"message": error} for error in errors], "warnings": []}
