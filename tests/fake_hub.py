"""A Hub on loopback with as much of its interface as uploading and downloading a model take."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


class FakeHub:
    """What was asked of the Hub, and what lies in its repositories.

    Attributes
    ----------
    requests : list of (method, path)
    tokens : set of str
        Seen in ``Authorization`` headers.
    repos : dict
        Repository -> file -> content; commits replace files.
    created : list of dict
        Bodies of the calls that create a repository.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.repos: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.endpoint = ""

    def sha(self, repo: str) -> str:
        """The commit: it changes with the content."""
        parts = [f"{name}:{hashlib.sha1(data).hexdigest()}" for name, data in self.repos[repo].items()]
        return hashlib.sha1("\n".join(sorted(parts)).encode()).hexdigest()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        match [unquote(part) for part in path.strip("/").split("/")], method:
            case ["api", "repos", "create"], "POST":
                asked = json.loads(body)
                self.created.append(asked)
                repo = (
                    asked["name"] if "/" in asked["name"] else f"{asked.get('organization')}/{asked['name']}"
                )
                # As the real one does on creation.
                self.repos.setdefault(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
                return _json({"url": f"{self.endpoint}/{repo}", "name": repo, "id": repo})
            case ["api", "validate-yaml"], "POST":
                return _json({"errors": [], "warnings": []})
            case ["api", "models", owner, name, "preupload", _], "POST":
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for file in json.loads(body)["files"]
                ]
                return _json({"files": files})
            case ["api", "models", owner, name, "commit", _], "POST":
                return self._commit(f"{owner}/{name}", body)
            case ["api", "models", owner, name, "tree", *_], "GET" if f"{owner}/{name}" in self.repos:
                return _json(
                    [
                        {
                            "type": "file",
                            "path": file,
                            "size": len(data),
                            "oid": hashlib.sha1(data).hexdigest(),
                        }
                        for file, data in self.repos[f"{owner}/{name}"].items()
                    ]
                )
            case ["api", "models", owner, name, *_], "GET" if f"{owner}/{name}" in self.repos:
                repo = f"{owner}/{name}"
                files = [{"rfilename": file} for file in self.repos[repo]]
                return _json(
                    {"id": repo, "modelId": repo, "sha": self.sha(repo), "siblings": files, "tags": []}
                )
            case [owner, name, "resolve", _, *file], "HEAD" | "GET" if f"{owner}/{name}" in self.repos:
                content = self.repos[f"{owner}/{name}"].get("/".join(file))
                if content is not None:
                    etag = hashlib.sha1(content).hexdigest()
                    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.sha(f"{owner}/{name}")}
                    return 200, headers, content
                return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        return 404, {"X-Error-Code": "RepoNotFound"}, b'{"error": "Repository not found"}'

    def _commit(self, repo: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "deletedFile":
                del self.repos[repo][entry["value"]["path"]]
            if entry["key"] == "file":
                value = entry["value"]
                assert value["encoding"] == "base64"
                self.repos[repo][value["path"]] = base64.b64decode(value["content"])
        sha = self.sha(repo)
        url = f"{self.endpoint}/{repo}/commit/{sha}"
        return _json({"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""})


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """Run a Hub and have `huggingface_hub` talk to it, with an empty cache of its own."""
    from huggingface_hub import constants

    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append((self.command, path))
            hub.bodies.append(body)
            if authorization := self.headers.get("Authorization"):
                hub.tokens.add(authorization.removeprefix("Bearer "))
            status, headers, content = hub.answer(self.command, path, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield hub
    server.shutdown()
    server.server_close()
    thread.join()
