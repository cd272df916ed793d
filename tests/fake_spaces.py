"""Spaces on the Hub of `fake_hub`: creating, configuring, building and running them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import fake_hub
from fake_hub import FakeHub


class FakeSpaces(FakeHub):
    """What was asked of the Hub's Spaces, and what is in them.

    Attributes
    ----------
    variables : dict
        Space -> variable -> value.
    hardware, visibility : dict
        Space -> what was asked for.
    stages : list of (stage, new)
        What a Space goes through after a commit, one for each time it is asked; the last one stays. `new`
        tells whether it is the new commit that has reached the stage.
    logs : dict
        "build" and "run" -> lines.
    refuse : dict
        (method, path) -> status and error of a request that is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.variables: dict[str, dict[str, str]] = {}
        self.hardware: dict[str, str | None] = {}
        self.visibility: dict[str, str] = {}
        self.stages: list[tuple[str, bool]] = [("RUNNING", True)]
        self.logs: dict[str, list[str]] = {"build": [], "run": []}
        self.refuse: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, space: str, files: dict[str, bytes]) -> None:
        """A Space that is already there."""
        self.repos[space] = {".gitattributes": b"", **files}
        self.variables[space], self.hardware[space], self.visibility[space] = {}, "cpu-basic", "public"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        if (method, path) in self.refuse:
            status, message = self.refuse[method, path]
            return status, {"X-Error-Message": message}, json.dumps({"error": message}).encode()
        match [unquote(part) for part in path.strip("/").split("/")], method:
            case ["api", "repos", "create"], "POST":
                return self._create(json.loads(body))
            case ["api", "spaces", owner, name, *rest], _ if f"{owner}/{name}" in self.repos:
                return self._of_space(f"{owner}/{name}", rest, method, path, body)
        return super().answer(method, path, body)

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        assert asked["type"] == "space" and asked["sdk"] == "gradio"
        space = f"{asked['organization']}/{asked['name']}"
        if space in self.repos:
            return 409, {}, b'{"error": "You already created this space repo"}'
        self.created.append(asked)
        self.add(space, {})
        self.hardware[space] = asked.get("hardware", "cpu-basic")
        self.visibility[space] = asked.get("visibility", "public")
        self.variables[space] = {each["key"]: each["value"] for each in asked.get("variables", ())}
        return _json({"url": f"{self.endpoint}/spaces/{space}", "name": space})

    def _of_space(
        self, space: str, rest: list[str], method: str, path: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        match rest, method:
            case ["variables"], "POST":
                asked = json.loads(body)
                self.variables[space][asked["key"]] = asked["value"]
                return self._of_space(space, rest, "GET", path, b"")
            case ["variables"], "GET":
                return _json({key: {"value": value} for key, value in self.variables[space].items()})
            case ["settings"], "PUT":
                self.visibility[space] = json.loads(body)["visibility"]
                return _json({})
            case ["hardware"], "POST":
                self.hardware[space] = json.loads(body)["flavor"]
                return self._runtime(space, "RUNNING", True)
            case ["runtime"], "GET":
                committed = any(asked.endswith("/commit/main") for _, asked in self.requests)
                if not committed:
                    return self._runtime(space, "RUNNING", True)
                return self._runtime(space, *(self.stages.pop(0) if len(self.stages) > 1 else self.stages[0]))
            case ["logs", kind], "GET":
                lines = [f"data: {json.dumps({'data': line})}\n\n" for line in self.logs[kind]]
                return 200, {"Content-Type": "text/event-stream"}, "".join(lines).encode()
        # Files lie in all kinds of repositories in the same way.
        return super().answer(method, path.replace("/api/spaces/", "/api/models/"), body)

    def _runtime(self, space: str, stage: str, new: bool) -> tuple[int, dict[str, str], bytes]:
        hardware = {"current": self.hardware[space], "requested": self.hardware[space]}
        sha = self.sha(space) if new else "0" * 40
        return _json({"stage": stage, "hardware": hardware, "sha": sha})


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def fake_spaces(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeSpaces]:
    """Run a Hub with Spaces and have `huggingface_hub` talk to it."""
    with monkeypatch.context() as patch:
        patch.setattr(fake_hub, "FakeHub", FakeSpaces)
        with fake_hub.fake_hub(monkeypatch, cache) as hub:
            assert isinstance(hub, FakeSpaces)
            yield hub
