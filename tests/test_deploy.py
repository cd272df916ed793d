"""Deploying a Space: exactly the right files, sent to a Hub on loopback."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import promptclf.deploy
from fake_spaces import FakeSpaces, fake_spaces
from promptclf.cli import app
from promptclf.deploy import deploy, space_files, stage
from promptclf.errors import PromptClfError
from promptclf.lm.embedded import HUB_ID
from promptclf.prompt import packaged_templates
from staging import git, make_checkout

SPACE = "me/promptclf"
TOKEN = "hf_aTokenThatMustStayHere"
DEFAULTS = {"PROMPTCLF_MODEL": HUB_ID, "PROMPTCLF_QUANTIZATION": "none"}

# Everything in a Space that is not Python. What is new here is sent to the public: look at it first.
NOT_PYTHON = {
    *("LICENSE", "README.md", "requirements.txt", "promptclf/py.typed", "promptclf/tasks/support/task.yaml"),
    *(f"promptclf/tasks/support/{split}.csv" for split in ("train", "validation", "test")),
    *(
        f"promptclf/tasks/support/{folder}/{name}"
        for folder in ("zero-shot", "few-shot", "adapter")
        for name in ("MANIFEST.json", "README.md", "promptclf.json")
    ),
    *(f"promptclf/tasks/support/adapter/adapter_{name}" for name in ("config.json", "model.safetensors")),
    *(f"promptclf/ui/assets/{name}" for name in ("app.css", "mend.js", "thread.js", "work.css")),
    *(f"promptclf/ui/locales/{language}.yaml" for language in ("en", "zh")),
    *(f"prompts/{name}.yaml" for name in packaged_templates()),
}
NEVER = (".env", "runs/", "tests/", ".git", "__pycache__", ".venv", ".sqlite3", ".jsonl", "secret", "mine")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the files of this one, all of them tracked; and then what must never be sent."""
    root = make_checkout(tmp_path_factory.mktemp("checkout"))
    for name in (
        ".env",
        "runs/1/predictions.csv",
        "promptclf/.env",
        "promptclf/secret.py",
        "promptclf/ui/__pycache__/app.cpython-311.pyc",
        "promptclf/tasks/mine/train.csv",
        "promptclf/store.sqlite3",
        "prompts/mine.yaml",
        "prompts/.feedback.jsonl",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("secret")
    return root


@pytest.fixture
def from_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Deploy from `checkout`."""
    monkeypatch.setattr(promptclf.deploy, "PACKAGE", checkout / "promptclf")
    return checkout


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSpaces]:
    """A Hub that builds at once, and a token for it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(promptclf.deploy, "POLL", 0.01)
    with fake_spaces(monkeypatch, tmp_path / "cache") as hub:
        yield hub


# ---- what is sent --------------------------------------------------------------------------------


def test_exactly_the_needed_files_are_staged(from_checkout: Path, tmp_path: Path) -> None:
    sizes = stage(tmp_path / "space")
    folder = tmp_path / "space"
    staged = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    files = {name: path for name, path in staged.items() if path.is_file()}
    modules = {
        path.relative_to(from_checkout).as_posix() for path in from_checkout.rglob("promptclf/**/*.py")
    }
    assert set(files) == {"app.py", *modules - {"promptclf/secret.py"}, *NOT_PYTHON}
    assert not [name for name in staged if any(word in name for word in NEVER)]
    assert sizes == {name: path.stat().st_size for name, path in files.items()}
    assert sum(sizes.values()) < 10e6
    for name, path in files.items():
        origin = from_checkout / promptclf.deploy.TOP.get(name, name)
        assert path.read_bytes() == origin.read_bytes(), name


def test_what_git_does_not_track_is_named(from_checkout: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "promptclf"):
        space_files()
    assert "not sent, because git does not track them: " in caplog.text
    assert "promptclf/secret.py" in caplog.text
    assert "promptclf/cli/deploy.py" not in caplog.text


def test_changes_are_sent_and_deleted_files_are_not(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkout, other)
    (other / "app.py").write_text("changed = True\n")
    (other / "prompts/chat_zh.yaml").unlink()
    (other / "prompts/topic_zh.yaml").unlink()
    (other / "prompts/topic_zh.yaml").symlink_to(other / ".env")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promptclf.deploy, "PACKAGE", other / "promptclf")
        sizes = stage(tmp_path / "space")
    assert (tmp_path / "space/app.py").read_text() == "changed = True\n"
    assert not {"prompts/chat_zh.yaml", "prompts/topic_zh.yaml"} & set(sizes)


@pytest.mark.slow
def test_the_wheel_sends_the_same_files(
    from_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("build")
    expected = {name: path.read_bytes() for name, path in space_files().items()}
    clean = tmp_path / "clean"
    subprocess.run(["git", "clone", "--quiet", str(from_checkout), str(clean)], check=True)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(clean),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "promptclf/tasks/mine").mkdir()
    (site / "promptclf/tasks/mine/train.csv").write_text("secret")
    code = (
        "import json, sys\n"
        "from promptclf.deploy import PACKAGE, stage\n"
        "print(json.dumps([str(PACKAGE), stage(sys.argv[1])]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "space")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    package, sizes = json.loads(ran.stdout)
    assert package == str(site / "promptclf")
    assert {name: (tmp_path / "space" / name).read_bytes() for name in sizes} == expected


def test_elsewhere_it_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptclf.deploy, "PACKAGE", tmp_path / "promptclf")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(PromptClfError, match="expected a git checkout or an installed wheel"):
        space_files()
    git(tmp_path, "init", "--quiet")
    with pytest.raises(PromptClfError, match=r"a Space needs README\.md, which is not among the files"):
        space_files()


@pytest.mark.usefixtures("from_checkout")
def test_another_model_changes_the_card_only(tmp_path: Path) -> None:
    stage(tmp_path / "default")
    stage(tmp_path / "other", model="Qwen/Qwen3-4B")
    for path in (tmp_path / "default").rglob("*"):
        name = path.relative_to(tmp_path / "default")
        if path.is_file() and name.name != "README.md":
            assert (tmp_path / "other" / name).read_bytes() == path.read_bytes()
    cards = [(tmp_path / folder / "README.md").read_text(encoding="utf-8") for folder in ("default", "other")]
    (_, front, body), (_, changed, same) = [card.split("---\n", 2) for card in cards]
    before, after = yaml.safe_load(front), yaml.safe_load(changed)
    assert body == same
    assert before["models"] == [HUB_ID] and before.pop("preload_from_hub")
    assert after == {**before, "models": ["Qwen/Qwen3-4B"]}
    assert list(after) == list(before)


@pytest.mark.usefixtures("from_checkout")
def test_what_cannot_be_staged_is_refused(tmp_path: Path) -> None:
    for name in ("embedded", "/models/mine", "a/b/c", "", "a b/c"):
        with pytest.raises(PromptClfError, match="model: expected a Hub id owner/name"):
            stage(tmp_path / "new", model=name)
    (tmp_path / "file").touch()
    with pytest.raises(PromptClfError, match="expected an empty folder"):
        stage(tmp_path)


# ---- sending it ----------------------------------------------------------------------------------


def asked(hub: FakeSpaces) -> list[str]:
    """The requests that change something, in order."""
    return [path for method, path in hub.requests if method not in ("GET", "HEAD")]


@pytest.mark.usefixtures("from_checkout")
def test_a_new_space(hub: FakeSpaces) -> None:
    hub.stages = [("BUILDING", True), ("APP_STARTING", True), ("RUNNING", True)]
    lines: list[str] = []
    result = deploy(SPACE, hardware="zero-a10g", private=True, tell=lines.append)

    assert result["address"] == f"{hub.endpoint}/spaces/{SPACE}"
    assert (result["stage"], result["commit"]) == ("RUNNING", hub.sha(SPACE))
    assert hub.created[0]["hardware"] == hub.hardware[SPACE] == "zero-a10g"
    assert hub.visibility[SPACE] == "private"
    assert hub.variables[SPACE] == DEFAULTS
    sent = {name: data for name, data in hub.repos[SPACE].items() if name != ".gitattributes"}
    assert sent == {name: path.read_bytes() for name, path in space_files().items()}
    assert set(result["files"]) == set(sent)
    assert hub.stages == [("RUNNING", True)]
    assert [line.split()[0] for line in lines] == ["creating", "sending", "waiting"]


@pytest.mark.usefixtures("from_checkout")
def test_the_token_goes_to_the_hub_and_nowhere_else(hub: FakeSpaces) -> None:
    result = deploy(SPACE)
    assert hub.tokens == {TOKEN}
    assert not [body for body in hub.bodies if TOKEN.encode() in body]
    assert not [name for name, data in hub.repos[SPACE].items() if TOKEN.encode() in data]
    assert TOKEN not in json.dumps(result)


@pytest.mark.usefixtures("from_checkout")
def test_an_existing_space_is_brought_up_to_date(hub: FakeSpaces) -> None:
    old = {
        "app.py": b"old",
        "promptclf/__init__.py": b"old",
        "promptclf/gone.py": b"old",
        "mine.txt": b"my own",
    }
    hub.add(SPACE, old)
    hub.variables[SPACE] = {"PROMPTCLF_MODEL": HUB_ID, "MINE": "1"}
    hub.stages = [("RUNNING", False), ("RUNNING_BUILDING", False), ("RUNNING", True)]
    result = deploy(SPACE, model="Qwen/Qwen3-4B", quantization="nf4", hardware="l4x1")

    assert hub.repos[SPACE]["app.py"] == space_files()["app.py"].read_bytes()
    assert hub.repos[SPACE]["mine.txt"] == b"my own"
    assert "promptclf/gone.py" not in hub.repos[SPACE]
    wanted = {"PROMPTCLF_MODEL": "Qwen/Qwen3-4B", "PROMPTCLF_QUANTIZATION": "nf4"}
    assert hub.variables[SPACE] == {**wanted, "MINE": "1"}
    assert hub.hardware[SPACE] == "l4x1"
    assert hub.visibility[SPACE] == "public"
    assert not hub.created
    assert result["stage"] == "RUNNING" and hub.stages == [("RUNNING", True)]

    hub.requests.clear()
    deploy(SPACE, model="Qwen/Qwen3-4B", quantization="nf4", hardware="l4x1", private=True)
    assert hub.visibility[SPACE] == "private"
    assert not [path for path in asked(hub) if path.endswith(("variables", "hardware"))], "set again"


@pytest.mark.usefixtures("from_checkout")
def test_another_app_is_left_alone(hub: FakeSpaces) -> None:
    hub.add(SPACE, {"app.py": b"someone's", "README.md": b"someone's"})
    with pytest.raises(PromptClfError, match=f"{SPACE} holds another app"):
        deploy(SPACE, private=True)
    assert asked(hub) == []
    hub.add(SPACE, {"README.md": b"made on the website"})
    assert deploy(SPACE)["stage"] == "RUNNING"


@pytest.mark.usefixtures("from_checkout")
@pytest.mark.parametrize(
    ("stage", "log"), [("BUILD_ERROR", "build"), ("RUNTIME_ERROR", "run"), ("PAUSED", "run")]
)
def test_a_space_that_does_not_come_up(
    hub: FakeSpaces, monkeypatch: pytest.MonkeyPatch, stage: str, log: str
) -> None:
    monkeypatch.setattr(promptclf.deploy, "SETTLING", 0.1)
    hub.stages = [("BUILDING", True), (stage, stage != "PAUSED")]
    hub.logs[log] = [f"line {n}\n" for n in range(40)]
    with pytest.raises(PromptClfError, match=f"{SPACE} was sent, but it is {stage}: line 20 .* line 39$"):
        deploy(SPACE)


@pytest.mark.usefixtures("from_checkout")
def test_patience_ends(hub: FakeSpaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptclf.deploy, "PATIENCE", 0.1)
    monkeypatch.setattr(promptclf.deploy, "SETTLING", 0.0)
    for stages in ([("BUILDING", True)], [("RUNNING", False)]):
        hub.stages = list(stages)
        with pytest.raises(PromptClfError, match=f"{SPACE} was sent, but does not run after 0 minutes"):
            deploy(SPACE)


@pytest.mark.usefixtures("from_checkout")
def test_what_the_hub_refuses_is_one_line(hub: FakeSpaces, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuse["POST", "/api/repos/create"] = 402, "a subscription is required"
    with pytest.raises(PromptClfError, match=r"cannot be deployed: .*a subscription is required") as refused:
        deploy(SPACE)
    assert "\n" not in str(refused.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PromptClfError, match="the Hub needs a token that may write: run hf auth login"):
        deploy(SPACE)
    with pytest.raises(PromptClfError, match="space: expected owner/name, got 'promptclf'"):
        deploy("promptclf")


# ---- the command ---------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    """Run ``promptclf deploy``."""
    return CliRunner().invoke(app, ["deploy", *arguments])


@pytest.mark.usefixtures("from_checkout")
def test_a_dry_run_needs_no_network_and_no_token(
    refused_connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    shown = run("--space", SPACE, "--dry-run", "--hardware", "zero-a10g", "--private")
    assert shown.exit_code == 0, shown.output
    for name, path in space_files().items():
        assert f"{path.stat().st_size:>11,}  {name}\n" in shown.stdout
    assert f"would be sent to https://huggingface.co/spaces/{SPACE}\n" in shown.stdout
    assert f"variables: PROMPTCLF_MODEL={HUB_ID}, PROMPTCLF_QUANTIZATION=none\n" in shown.stdout
    assert "hardware: zero-a10g; visibility: private\n" in shown.stdout

    plan = json.loads(run("--space", SPACE, "--dry-run", "--json", "--quantization", "int8").stdout)
    assert plan["dry_run"] is True and plan["hardware"] is None and plan["private"] is False
    assert plan["variables"] == {**DEFAULTS, "PROMPTCLF_QUANTIZATION": "int8"}
    assert plan["files"] == {name: path.stat().st_size for name, path in space_files().items()}
    assert plan["schema_version"] == 1
    assert refused_connections == []


@pytest.mark.usefixtures("from_checkout")
def test_the_command_prints_the_address(hub: FakeSpaces) -> None:
    done = run("--space", SPACE)
    assert (done.exit_code, done.stdout) == (0, f"{hub.endpoint}/spaces/{SPACE}\n")
    assert "waiting until the Space runs" in done.stderr
    again = json.loads(run("--space", SPACE, "--json").stdout)
    assert (again["stage"], again["commit"]) == ("RUNNING", hub.sha(SPACE))


def test_wrong_arguments() -> None:
    wrong = run("--space", "no-owner", "--dry-run")
    assert (wrong.exit_code, wrong.stderr) == (2, "error: space: expected owner/name, got 'no-owner'\n")
    assert run().exit_code == 2
